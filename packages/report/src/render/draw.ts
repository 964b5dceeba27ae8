import { HeatmapChart, LineChart } from "echarts/charts";
import { GridComponent, LegendComponent, MarkLineComponent, TitleComponent, VisualMapComponent } from "echarts/components";
import { init, use } from "echarts/core";
import { SVGRenderer } from "echarts/renderers";
import type { Drawing } from "../chart/option.js";

use([GridComponent, HeatmapChart, LegendComponent, LineChart, MarkLineComponent, SVGRenderer, TitleComponent, VisualMapComponent]);

/** @returns the drawing as an SVG document; the same bytes for the same drawing */
export function drawSvg({ widthPx, heightPx, option }: Drawing, id: string): string {
  const chart = init(null, null, { renderer: "svg", ssr: true, width: widthPx, height: heightPx });
  try {
    chart.setOption(option);
    return still(chart.renderToSVGString(), id);
  } finally {
    chart.dispose();
  }
}

/**
 * Without what ECharts adds for the mouse: classes, which it numbers through the life of a process, and their rules. Ids begin with the
 * figure's in place of the chart's number, since a page needs names that differ between its pictures.
 */
function still(svg: string, id: string): string {
  return svg
    .replace(/<style\s*><!\[CDATA\[.*?<\/style>\s*/s, "")
    .replaceAll(/ class="zr\d+-cls-\d+"/g, "")
    .replaceAll(/\bzr\d+-/g, `${id}-`);
}
