import type { LossByPositionSpec } from "@segue/core";
import type { QueuedEvaluation } from "./kind.js";
import { promptParts } from "./prompt-parts.js";

/** One cell for each few prompts. */
export function queuedLossByPosition(spec: LossByPositionSpec): QueuedEvaluation {
  const { tokens, bucketTokens, prompt, seed, prompts, trainTokens, collapseFactor } = spec;
  const task = "lossByPosition";
  return {
    fields: { kind: task, ...spec },
    parent: { task, bucketTokens, trainTokens, collapseFactor },
    cells: promptParts(prompts).map(({ part, ...cell }) => ({
      part,
      work: { task, ...cell, tokens, bucketTokens, prompt, seed },
    })),
  };
}
