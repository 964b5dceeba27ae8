import type { EvaluationSpec, LossByPositionSpec, PasskeyEvaluationSpec } from "@segue/core";
import { cellJobId } from "@segue/runtime";

/** What an evaluation puts into Redis and the queues (docs/reference/redis.md). */
export interface QueuedEvaluation {
  /** Settings in the evaluation's hash. */
  readonly fields: Readonly<Record<string, string | number>>;
  /** What closing it takes. */
  readonly parent: object;
  readonly cells: readonly { readonly id: string; readonly work: object }[];
}

/** Prompts that one cell scores at once: few enough for a large model's activations, and for little to be lost when it is cut off. */
const PROMPTS_PER_CELL = 4;

/** One cell for each length and depth, or for each few prompts. Pure. */
export function queuedEvaluation(id: string, { passkey, lossByPosition }: EvaluationSpec): QueuedEvaluation {
  if (lossByPosition) return lossCells(id, lossByPosition);
  if (passkey) return passkeyCells(id, passkey);
  throw new Error(`evaluation ${id} is of no kind`);
}

function passkeyCells(id: string, { lengths, depths, ...settings }: PasskeyEvaluationSpec): QueuedEvaluation {
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
    cells: cells.map((cell) => ({ id: cellJobId(id, cell), work: { ...cell, ...settings } })),
  };
}

function lossCells(id: string, spec: LossByPositionSpec): QueuedEvaluation {
  const { tokens, bucketTokens, prompt, seed, prompts, trainTokens, collapseFactor } = spec;
  const cells = Array.from({ length: Math.ceil(prompts / PROMPTS_PER_CELL) }, (_, index) => {
    const firstPrompt = index * PROMPTS_PER_CELL;
    return { firstPrompt, prompts: Math.min(PROMPTS_PER_CELL, prompts - firstPrompt) };
  });
  const task = "lossByPosition";
  return {
    fields: { kind: task, ...spec },
    parent: { task, bucketTokens, trainTokens, collapseFactor },
    cells: cells.map((cell) => ({ id: cellJobId(id, cell), work: { task, ...cell, tokens, bucketTokens, prompt, seed } })),
  };
}
