import type { LossByPositionSpec } from "@segue/core";
import type { QueuedEvaluation } from "./kind.js";

/** Prompts that one cell scores at once: few enough for a large model's activations, and for little to be lost when it is cut off. */
const PROMPTS_PER_CELL = 4;

/** One cell for each few prompts. */
export function queuedLossByPosition(spec: LossByPositionSpec): QueuedEvaluation {
  const { tokens, bucketTokens, prompt, seed, prompts, trainTokens, collapseFactor } = spec;
  const cells = Array.from({ length: Math.ceil(prompts / PROMPTS_PER_CELL) }, (_, index) => {
    const firstPrompt = index * PROMPTS_PER_CELL;
    return { firstPrompt, prompts: Math.min(PROMPTS_PER_CELL, prompts - firstPrompt) };
  });
  const task = "lossByPosition";
  return {
    fields: { kind: task, ...spec },
    parent: { task, bucketTokens, trainTokens, collapseFactor },
    cells: cells.map((cell) => ({
      part: `prompts-${cell.firstPrompt}-${cell.prompts}`,
      work: { task, ...cell, tokens, bucketTokens, prompt, seed },
    })),
  };
}
