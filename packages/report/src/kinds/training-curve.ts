import { curveChart } from "../chart/curve-chart.js";
import { formatShort } from "../chart/numbers.js";
import { finite } from "../data-table.js";
import type { TrainingCurveFigure } from "../figure.js";
import type { FigureKind } from "./kind.js";

export const trainingCurve: FigureKind<TrainingCurveFigure> = {
  drawing: ({ title, curves, step }) =>
    curveChart(title, [
      {
        x: { title: "step", scale: "linear", format: "short", min: 0 },
        y: { title: "training loss (nats a token)", scale: "linear", format: "plain" },
        curves: curves.map(({ name, points }) => ({ name, points: points.map((point) => ({ x: point.step, y: point.loss })) })),
        marks: step === undefined ? [] : [{ axis: "x", at: step, label: `step ${formatShort(step)}` }],
      },
    ]),
  table: ({ curves }) => ({
    columns: ["curve", "step", "loss"],
    rows: curves.flatMap(({ name, points }) => points.map(({ step, loss }) => [name, step, finite(loss)])),
  }),
};
