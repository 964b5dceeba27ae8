import type { PasskeyEvaluationSpec } from "@segue/core";
import type { QueuedEvaluation } from "./kind.js";

/** One cell for each length and depth. */
export function queuedPasskey({ lengths, depths, ...settings }: PasskeyEvaluationSpec): QueuedEvaluation {
  const cells = lengths.flatMap((length) => depths.map((depth) => ({ length, depth })));
  return {
    fields: {
      kind: "passkey",
      lengths: JSON.stringify(lengths),
      depths: JSON.stringify(depths),
      ...settings,
      carryState: String(settings.carryState),
    },
    parent: {},
    cells: cells.map((cell) => ({ part: `len-${cell.length}_depth-${cell.depth}`, work: { ...cell, ...settings } })),
  };
}
