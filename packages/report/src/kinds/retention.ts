import { curveChart } from "../chart/curve-chart.js";
import type { RetentionFigure } from "../figure.js";
import { POSITION_AXIS, trainingMark } from "./axes.js";
import { courseCurves, courseTable } from "./courses.js";
import type { FigureKind } from "./kind.js";

export const retention: FigureKind<RetentionFigure> = {
  drawing: ({ title, tokens, heads, trainTokens }) =>
    curveChart(title, [
      {
        x: { ...POSITION_AXIS, title: "position t (tokens)" },
        y: { title: "left of the first token", scale: "linear", format: "percent", min: 0, max: 1 },
        curves: courseCurves(tokens, heads),
        marks: trainingMark(trainTokens),
      },
    ]),
  table: ({ tokens, heads }) => courseTable(tokens, { retention: heads }),
};
