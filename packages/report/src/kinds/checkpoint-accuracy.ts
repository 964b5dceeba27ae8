import { curveChart } from "../chart/curve-chart.js";
import type { CheckpointAccuracyFigure } from "../figure.js";
import { ACCURACY_AXIS, LENGTH_AXIS, trainingMark } from "./axes.js";
import type { FigureKind } from "./kind.js";

export const checkpointAccuracy: FigureKind<CheckpointAccuracyFigure> = {
  drawing: ({ title, checkpoints, trainTokens }) => {
    const curves = checkpoints.map(({ name, points }) => ({
      name,
      points: points.map(({ length, accuracy, interval }) => ({ x: length, y: accuracy, ...(interval && { interval }) })),
    }));
    return curveChart(title, [{ x: LENGTH_AXIS, y: ACCURACY_AXIS, curves, marks: trainingMark(trainTokens) }]);
  },
  table: ({ checkpoints }) => ({
    columns: ["checkpoint", "length", "accuracy", "low", "high"],
    rows: checkpoints.flatMap(({ name, points }) =>
      points.map(({ length, accuracy, interval }) => [name, length, accuracy, interval?.low ?? null, interval?.high ?? null]),
    ),
  }),
};
