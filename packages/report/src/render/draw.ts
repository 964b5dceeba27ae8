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
    // ECharts numbers charts through the life of a process, and a page needs names that differ between its pictures.
    return chart.renderToSVGString().replaceAll(/\bzr\d+-/g, `${id}-`);
  } finally {
    chart.dispose();
  }
}
