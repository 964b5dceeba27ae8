import { curveChart } from "../chart/curve-chart.js";
import { finite } from "../data-table.js";
import type { RemembranceFigure } from "../figure.js";
import type { FigureKind } from "./kind.js";

export const remembrance: FigureKind<RemembranceFigure> = {
  drawing: ({ title, curves }) =>
    curveChart(title, [
      {
        x: { title: "tokens left out at the start", scale: "log2", format: "tokens" },
        y: { title: "total variation distance", scale: "linear", format: "plain", min: 0, max: 1 },
        curves: curves.map(({ name, points }) => ({
          name,
          points: points.map(({ start, distance }) => ({ x: start, y: distance })),
        })),
      },
    ]),
  table: ({ curves }) => ({
    columns: ["curve", "start", "distance"],
    rows: curves.flatMap(({ name, points }) => points.map(({ start, distance }) => [name, start, finite(distance)])),
  }),
};
