import { curveChart, type Mark } from "../chart/curve-chart.js";
import { formatPlain } from "../chart/numbers.js";
import { finite } from "../data-table.js";
import type { LossByPositionFigure } from "../figure.js";
import { POSITION_AXIS, trainingMark } from "./axes.js";
import type { FigureKind } from "./kind.js";

export const lossByPosition: FigureKind<LossByPositionFigure> = {
  drawing: ({ title, curves, trainTokens, collapseLoss }) => {
    const limit: Mark[] =
      collapseLoss === undefined ? [] : [{ axis: "y", at: collapseLoss, label: `collapse above ${formatPlain(collapseLoss)}` }];
    return curveChart(title, [
      {
        x: POSITION_AXIS,
        y: { title: "loss (nats a token)", scale: "linear", format: "plain" },
        // In the middle of its bucket: on a logarithmic axis the first has no beginning.
        curves: curves.map(({ name, bucketTokens, losses }) => ({
          name,
          points: losses.map((loss, bucket) => ({ x: (bucket + 0.5) * bucketTokens, y: loss })),
        })),
        marks: [...trainingMark(trainTokens), ...limit],
      },
    ]);
  },
  table: ({ curves }) => ({
    columns: ["curve", "fromToken", "toToken", "loss"],
    rows: curves.flatMap(({ name, bucketTokens, losses }) =>
      losses.map((loss, bucket) => [name, bucket * bucketTokens, (bucket + 1) * bucketTokens, finite(loss)]),
    ),
  }),
};
