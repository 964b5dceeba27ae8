import { curveChart } from "../chart/curve-chart.js";
import type { StateMomentsFigure } from "../figure.js";
import { POSITION_AXIS, trainingMark } from "./axes.js";
import { courseCurves, courseTable } from "./courses.js";
import type { FigureKind } from "./kind.js";

export const stateMoments: FigureKind<StateMomentsFigure> = {
  drawing: ({ title, tokens, means, variances, trainTokens }) =>
    curveChart(title, [
      {
        x: POSITION_AXIS,
        y: { title: "mean", scale: "linear", format: "plain" },
        curves: courseCurves(tokens, means),
        marks: trainingMark(trainTokens),
      },
      {
        x: POSITION_AXIS,
        y: { title: "variance", scale: "log10", format: "plain" },
        curves: courseCurves(tokens, variances),
        marks: trainingMark(trainTokens).map((mark) => ({ ...mark, label: "" })),
      },
    ]),
  table: ({ tokens, means, variances }) => courseTable(tokens, { mean: means, variance: variances }),
};
