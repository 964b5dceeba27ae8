import { randomStream, type Random } from "@segue/core";
import type { Engine, LaneStates } from "./engine.js";

/** Tokens of a prompt in one forward pass; memory does not grow with the prompt. */
const SEGMENT_TOKENS = 1024;

export interface SamplingOptions {
  /** Ids from here on are padding of the embedding and never drawn. */
  readonly vocab: number;
  /** 0: always the most likely token. Else the logits are divided by it. */
  readonly temperature: number;
  readonly seed: number;
  /** Each ends the text; not part of it. */
  readonly endIds: readonly number[];
}

/**
 * Feeds a prompt of one lane that arrives in pieces; how it is cut into pieces has no influence.
 * @returns logits after its last token, [1, vocab], and how many tokens it had; no logits for an empty prompt
 */
export async function prefillStream(
  engine: Engine,
  states: LaneStates,
  pieces: AsyncIterable<ArrayLike<number>>,
): Promise<{ logits_V: Float32Array | undefined; tokens: number }> {
  const segment = new Int32Array(SEGMENT_TOKENS);
  let filled = 0;
  let tokens = 0;
  let logits_V: Float32Array | undefined;
  const flush = (): void => {
    if (filled === 0) return;
    logits_V = engine.prefill({ lanes: 1, tokens: filled, tokens_BT: segment.slice(0, filled) }, states);
    tokens += filled;
    filled = 0;
  };
  for await (const piece of pieces) {
    for (let at = 0; at < piece.length; at++) {
      segment[filled++] = piece[at]!;
      if (filled === SEGMENT_TOKENS) flush();
    }
  }
  flush();
  return { logits_V, tokens };
}

/**
 * Continues the text of one lane, at most `newTokens` tokens, until an end token. The same seed gives the same tokens.
 * @param logits_V logits after the prompt
 */
export function* continueText(
  engine: Engine,
  states: LaneStates,
  logits_V: Float32Array,
  newTokens: number,
  options: SamplingOptions,
): Generator<number, void, undefined> {
  const random = randomStream(options.seed, "generate");
  let logits = logits_V;
  for (let drawn = 0; drawn < newTokens; drawn++) {
    const token = drawToken(logits, options, random);
    if (options.endIds.includes(token)) return;
    yield token;
    if (drawn + 1 < newTokens) logits = engine.prefill({ lanes: 1, tokens: 1, tokens_BT: Int32Array.of(token) }, states);
  }
}

/** The most likely token, the lowest of equals, or one drawn by its probability. */
export function drawToken(
  logits_V: Float32Array,
  { vocab, temperature }: Pick<SamplingOptions, "vocab" | "temperature">,
  random: Random,
): number {
  let best = 0;
  for (let id = 1; id < vocab; id++) if (logits_V[id]! > logits_V[best]!) best = id;
  if (temperature === 0) return best;
  // In float64, less the largest logit: no exponential overflows, and their sum is at least 1.
  const weightOf = (id: number): number => Math.exp((logits_V[id]! - logits_V[best]!) / temperature);
  let sum = 0;
  for (let id = 0; id < vocab; id++) sum += weightOf(id);
  let left = random.uniform() * sum;
  for (let id = 0; id < vocab; id++) {
    left -= weightOf(id);
    if (left < 0) return id;
  }
  return best;
}
