import { curveChart } from "../chart/curve-chart.js";
import { finite } from "../data-table.js";
import type { CurvesFigure } from "../figure.js";
import type { FigureKind } from "./kind.js";

export const curves: FigureKind<CurvesFigure> = {
  drawing: ({ title, x, y, curves, marks = [] }) => curveChart(title, [{ x, y, curves, marks }]),
  table: ({ x, y, curves }) => ({
    columns: ["curve", x.title, y.title],
    rows: curves.flatMap(({ name, points }) => points.map((point) => [name, finite(point.x), finite(point.y)])),
  }),
};
