import { curveChart } from "../chart/curve-chart.js";
import { formatTokens } from "../chart/numbers.js";
import { finite } from "../data-table.js";
import type { ChannelHistogramFigure } from "../figure.js";
import type { FigureKind } from "./kind.js";

type Place = ChannelHistogramFigure["places"][number];

export const channelHistogram: FigureKind<ChannelHistogramFigure> = {
  drawing: ({ title, places }) =>
    curveChart(title, [
      {
        x: { title: "value of a channel", scale: "linear", format: "plain" },
        y: { title: "channels", scale: "log10", format: "short", min: 0.5 },
        curves: places
          .filter(({ low }) => Number.isFinite(low))
          .map((place) => ({
            name: `at ${formatTokens(place.tokens)}`,
            style: "steps" as const,
            points: outline(place),
          })),
      },
    ]),
  table: ({ places }) => ({
    columns: ["tokens", "low", "high", "channels"],
    rows: places.flatMap((place) =>
      place.counts.map((count, bin) => [place.tokens, finite(border(place, bin)), finite(border(place, bin + 1)), count]),
    ),
  }),
};

function border({ low, high, counts }: Place, bin: number): number {
  return low + ((high - low) * bin) / counts.length;
}

/** Along the tops of the bins; an empty one lies on the floor, where no count does. */
function outline(place: Place): { x: number; y: number }[] {
  const tops = place.counts.map((count, bin) => ({ x: border(place, bin + 1), y: Math.max(count, 0.5) }));
  return [{ x: place.low, y: 0.5 }, ...tops, { x: place.high, y: 0.5 }];
}
