import type { AxisSpec } from "../chart/axis.js";
import type { Mark } from "../chart/curve-chart.js";
import { formatTokens } from "../chart/numbers.js";

export const POSITION_AXIS: AxisSpec = { title: "position (tokens)", scale: "log2", format: "tokens" };
export const LENGTH_AXIS: AxisSpec = { title: "context length (tokens)", scale: "log2", format: "tokens" };
export const ACCURACY_AXIS: AxisSpec = { title: "accuracy", scale: "linear", format: "percent", min: 0, max: 1 };

/** Where training ended; none where that is not known. */
export function trainingMark(trainTokens: number | undefined): Mark[] {
  return trainTokens === undefined ? [] : [{ axis: "x", at: trainTokens, label: `trained to ${formatTokens(trainTokens)}` }];
}
