import type { Engine, LaneStates } from "./engine.js";

/** Prompts of one length; read piece by piece, so that long ones need not lie in memory. */
export interface Prompt {
  readonly lanes: number;
  readonly tokens: number;
  /** `count` tokens of a lane from number `from` on. */
  readonly read: (lane: number, from: number, count: number) => ArrayLike<number>;
}

/**
 * Feeds prompts of any length, at most `segmentTokens` at a time, so that memory does not grow with the prompt.
 * @returns logits after the last token, [lanes, vocab]
 */
export function prefillPrompt(
  engine: Pick<Engine, "prefill">,
  states: LaneStates,
  prompt: Prompt,
  segmentTokens: number,
): Float32Array {
  const { lanes, tokens, read } = prompt;
  if (tokens < 1 || segmentTokens < 1) throw new RangeError("a prompt and its segments have at least one token");
  for (let start = 0; ; start += segmentTokens) {
    const length = Math.min(segmentTokens, tokens - start);
    const segment_BT = new Int32Array(lanes * length);
    for (let lane = 0; lane < lanes; lane++) segment_BT.set(read(lane, start, length), lane * length);
    const logits_BV = engine.prefill({ lanes, tokens: length, tokens_BT: segment_BT }, states);
    if (start + length === tokens) return logits_BV;
  }
}

/**
 * Continues each lane with its most likely token, `newTokens` times; of equally likely tokens the lowest id wins.
 * The last token drawn is not fed back.
 * @param logits_BV logits after the prompt
 * @returns [lanes, newTokens]
 */
export function greedyDecode(
  engine: Pick<Engine, "prefill">,
  states: LaneStates,
  logits_BV: Float32Array,
  newTokens: number,
): Int32Array {
  const { lanes } = states;
  const decoded_BT = new Int32Array(lanes * newTokens);
  let logits = logits_BV;
  for (let t = 0; t < newTokens; t++) {
    const next_B = mostLikely(logits, lanes);
    next_B.forEach((token, lane) => (decoded_BT[lane * newTokens + t] = token));
    if (t + 1 < newTokens) logits = engine.prefill({ lanes, tokens: 1, tokens_BT: next_B }, states);
  }
  return decoded_BT;
}

/** A plain loop: a callback per id would cost as much as a tenth of a decode step with a large vocabulary. */
function mostLikely(logits_BV: Float32Array, lanes: number): Int32Array {
  const vocab = logits_BV.length / lanes;
  const best_B = new Int32Array(lanes);
  for (let lane = 0; lane < lanes; lane++) {
    const row = lane * vocab;
    let best = 0;
    for (let id = 1; id < vocab; id++) if (logits_BV[row + id]! > logits_BV[row + best]!) best = id;
    best_B[lane] = best;
  }
  return best_B;
}
