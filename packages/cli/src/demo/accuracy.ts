import type { EvaluationResult } from "../evaluation/read-evaluation.js";

/** Share of right answers in the cells whose key lies at least one whole segment before the question. */
export interface FarAccuracy {
  /** Over all lengths; null when no cell is known. */
  readonly mean: number | null;
  /** In the order of the evaluation's lengths. */
  readonly byLength: readonly { readonly length: number; readonly accuracy: number | null }[];
}

/** Only what a state carries over a segment boundary can answer these cells. Pure. */
export function farAccuracy({ lengths, cells }: Pick<EvaluationResult, "lengths" | "cells">, segmentTokens: number): FarAccuracy {
  const far = cells.filter(({ length, depth }) => length * (1 - depth) >= segmentTokens);
  const mean = (part: typeof far): number | null => {
    return part.length === 0 ? null : part.reduce((sum, { correct, samples }) => sum + correct / samples, 0) / part.length;
  };
  return {
    mean: mean(far),
    byLength: lengths.map((length) => ({ length, accuracy: mean(far.filter((cell) => cell.length === length)) })),
  };
}
