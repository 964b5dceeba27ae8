import { curveChart } from "../chart/curve-chart.js";
import type { StateSizesFigure } from "../figure.js";
import type { FigureKind } from "./kind.js";

export const stateSizes: FigureKind<StateSizesFigure> = {
  drawing: ({ title, families }) =>
    curveChart(title, [
      {
        x: { title: "model size (parameters)", scale: "log10", format: "short" },
        y: { title: "state size (floats)", scale: "log10", format: "short" },
        curves: families.map(({ name, models }) => ({
          name,
          points: [...models]
            .sort((a, b) => a.parameters - b.parameters)
            .map((model) => ({ x: model.parameters, y: model.stateFloats, ...(models.length > 1 && { label: model.name }) })),
        })),
      },
    ]),
  table: ({ families }) => ({
    columns: ["family", "model", "parameters", "stateFloats"],
    rows: families.flatMap(({ name, models }) => models.map((model) => [name, model.name, model.parameters, model.stateFloats])),
  }),
};
