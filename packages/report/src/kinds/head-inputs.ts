import { curveChart } from "../chart/curve-chart.js";
import type { Course, HeadInputsFigure } from "../figure.js";
import { POSITION_AXIS, trainingMark } from "./axes.js";
import { courseCurves, courseTable } from "./courses.js";
import type { FigureKind } from "./kind.js";

export const headInputs: FigureKind<HeadInputsFigure> = {
  drawing: ({ title, tokens, dt, b, x, trainTokens }) => {
    const panels: [string, readonly Course[]][] = [
      ["time step dt", dt],
      ["size of B", b],
      ["size of x", x],
    ];
    return curveChart(
      title,
      panels.map(([name, courses], index) => ({
        x: POSITION_AXIS,
        y: { title: name, scale: "linear", format: "plain" },
        curves: courseCurves(tokens, courses),
        marks: trainingMark(trainTokens).map((mark) => (index === 0 ? mark : { ...mark, label: "" })),
      })),
    );
  },
  table: ({ tokens, dt, b, x }) => courseTable(tokens, { dt, b, x }),
};
