import type { StateStatisticsSpec } from "@segue/core";
import type { QueuedEvaluation } from "./kind.js";

/** One cell: a state at the end of a text takes all that comes before. */
export function queuedStateStatistics({ histogramTokens, ...settings }: StateStatisticsSpec): QueuedEvaluation {
  const task = "stateStatistics";
  return {
    fields: { kind: task, ...settings, histogramTokens: JSON.stringify(histogramTokens) },
    parent: { task },
    cells: [{ part: "trace", work: { task, ...settings, histogramTokens } }],
  };
}
