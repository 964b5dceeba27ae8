import { positionPrompt, type Tokenizer } from "@segue/core";
import type { Engine } from "@segue/engine";
import type { LossCell, LossCellResult } from "./cell.js";

/** Positions of every prompt in one forward pass; memory does not grow with the prompts. */
const SEGMENT_TOKENS = 2048;

/**
 * Cross-entropy of the next token after each of `tokens` positions, averaged over the cell's prompts and over buckets of positions; the
 * state starts from zero and is carried from segment to segment (paper.md section 1.3, M1; no position is lost at the boundaries). A
 * function of the model and the cell alone, but for the time it takes.
 * @param onTokens told how many tokens are scored, after each segment
 */
export function evaluateLossCell(
  { engine, tokenizer }: { readonly engine: Engine; readonly tokenizer: Tokenizer },
  cell: LossCell,
  onTokens?: (done: number) => void,
): LossCellResult {
  const startedAt = performance.now();
  const { prompts: lanes, firstPrompt, tokens, bucketTokens } = cell;
  const prompts = Array.from({ length: lanes }, (_, lane) => positionPrompt(tokenizer, cell, firstPrompt + lane));
  const sums = new Float64Array(Math.ceil(tokens / bucketTokens));
  const states = engine.createStates(lanes);
  try {
    for (let start = 0; start < tokens; start += SEGMENT_TOKENS) {
      const length = Math.min(SEGMENT_TOKENS, tokens - start);
      const tokens_BT = new Int32Array(lanes * length);
      const labels_BT = new Int32Array(lanes * length);
      prompts.forEach(({ read }, lane) => {
        const piece = read(start, length + 1);
        tokens_BT.set(piece.subarray(0, length), lane * length);
        labels_BT.set(piece.subarray(1), lane * length);
      });
      const losses_BT = engine.score({ lanes, tokens: length, tokens_BT, labels_BT }, states);
      losses_BT.forEach((loss, index) => {
        sums[Math.floor((start + (index % length)) / bucketTokens)]! += loss;
      });
      onTokens?.(lanes * (start + length));
    }
  } finally {
    engine.freeStates(states);
  }
  const losses = Array.from(sums, (sum, bucket) => sum / (lanes * Math.min(bucketTokens, tokens - bucket * bucketTokens)));
  return {
    firstPrompt,
    prompts: lanes,
    losses: losses.map((loss) => (Number.isFinite(loss) ? Number(loss.toPrecision(7)) : null)),
    ms: Math.round(performance.now() - startedAt),
    tokens: lanes * tokens,
  };
}
