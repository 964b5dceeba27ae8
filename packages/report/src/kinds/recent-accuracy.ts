import { curveChart } from "../chart/curve-chart.js";
import { formatTokens } from "../chart/numbers.js";
import type { RecentAccuracyFigure } from "../figure.js";
import { ACCURACY_AXIS, LENGTH_AXIS } from "./axes.js";
import type { FigureKind } from "./kind.js";

export const recentAccuracy: FigureKind<RecentAccuracyFigure> = {
  drawing: ({ title, entries }) => {
    const spans = [...new Set(entries.map(({ lastTokens }) => lastTokens))];
    const curves = spans.map((span) => ({
      name: `in the last ${formatTokens(span)}`,
      points: entries
        .filter(({ lastTokens }) => lastTokens === span)
        .map(({ length, accuracy, interval }) => ({ x: length, y: accuracy, interval })),
    }));
    return curveChart(title, [{ x: LENGTH_AXIS, y: ACCURACY_AXIS, curves }]);
  },
  table: ({ entries }) => ({
    columns: ["lastTokens", "length", "correct", "samples", "accuracy", "low", "high"],
    rows: entries.map(({ lastTokens, length, correct, samples, accuracy, interval }) => [
      ...[lastTokens, length, correct, samples, accuracy],
      ...[interval.low, interval.high],
    ]),
  }),
};
