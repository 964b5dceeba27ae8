import { formatPercent, formatTokens } from "../chart/numbers.js";
import { AXIS_STYLE, baseOption, FONT_PX, SHEET_WIDTH_PX } from "../chart/option.js";
import { INK, SHARE_COLOURS } from "../chart/palette.js";
import type { PasskeyMapFigure } from "../figure.js";
import type { FigureKind } from "./kind.js";
import { wilsonInterval } from "@segue/core";

const ROW_PX = 34;
/** From here on the colours are so bright that dark text is read better. */
const BRIGHT_SHARE = 0.55;

export const passkeyMap: FigureKind<PasskeyMapFigure> = {
  drawing: ({ title, lengths, depths, cells }) => {
    const plotPx = Math.max(180, depths.length * ROW_PX);
    const data = cells.flatMap(({ length, depth, correct, samples }) => {
      const [column, row] = [lengths.indexOf(length), depths.indexOf(depth)];
      if (column < 0 || row < 0 || samples === 0) return [];
      const share = correct / samples;
      return [{ value: [column, row, share], label: { color: share >= BRIGHT_SHARE ? INK_ON_BRIGHT : INK_ON_DARK } }];
    });
    const option = {
      ...baseOption(title),
      grid: { left: 96, right: 130, top: 62, height: plotPx, outerBoundsMode: "none" as const },
      xAxis: {
        ...AXIS_STYLE,
        type: "category" as const,
        name: "context length (tokens)",
        nameGap: 30,
        data: lengths.map(formatTokens),
        splitLine: { show: false },
      },
      yAxis: {
        ...AXIS_STYLE,
        type: "category" as const,
        name: "depth of the key",
        nameGap: 64,
        // The start of the context is above, as it is read.
        inverse: true,
        data: depths.map(formatPercent),
        splitLine: { show: false },
      },
      visualMap: {
        min: 0,
        max: 1,
        dimension: 2,
        seriesIndex: 0,
        right: 18,
        top: 62,
        itemHeight: plotPx - 50,
        itemWidth: 16,
        calculable: false,
        text: ["100 %", "0 %"],
        textStyle: { color: INK.text.light, fontSize: FONT_PX - 1 },
        inRange: { color: [...SHARE_COLOURS] },
      },
      series: [
        {
          type: "heatmap" as const,
          silent: true,
          emphasis: { disabled: true },
          data,
          label: {
            show: lengths.length <= 14,
            fontSize: FONT_PX - 1,
            formatter: ({ value }: { value?: unknown }) => percentOf(value),
          },
          itemStyle: { borderColor: INK.paper.light, borderWidth: 1.5 },
        },
      ],
    };
    return { widthPx: SHEET_WIDTH_PX, heightPx: 62 + plotPx + 58, option };
  },
  table: ({ cells }) => ({
    columns: ["length", "depth", "correct", "samples", "accuracy", "low", "high"],
    rows: cells.map(({ length, depth, correct, samples }) => {
      if (samples === 0) return [length, depth, correct, samples, null, null, null];
      const { low, high } = wilsonInterval(correct, samples);
      return [length, depth, correct, samples, correct / samples, low, high];
    }),
  }),
};

/** On colours that are the same on every page. */
const INK_ON_BRIGHT = "#101418";
const INK_ON_DARK = "#f7f8f9";

function percentOf(value: unknown): string {
  const share: unknown = Array.isArray(value) ? value[2] : undefined;
  return typeof share === "number" ? String(Math.round(100 * share)) : "";
}
