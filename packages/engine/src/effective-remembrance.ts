import { totalVariation } from "@segue/core";
import { prefillPrompt, type Prompt } from "./decode.js";
import type { Engine } from "./engine.js";

export interface RemembranceOptions {
  /** T: tokens of the context. */
  readonly tokens: number;
  /** Each t; at least 0 and less than T. */
  readonly starts: readonly number[];
  /** Tokens of every lane in one pass; memory does not grow with the context. */
  readonly segmentTokens: number;
}

/**
 * Effective remembrance (Ruiz and Gu 2025; paper.md section 8.5): how far the prediction after a context is from the prediction after the same
 * context without its first t tokens, EffRem_T(t) = TV(q(.|x[0:T]), q(.|x[t:T])). Prompts go through the model as lanes beside each other.
 * @param read `count` tokens of a lane's text from number `from` on
 * @param onTokens told how many tokens have been read, of all lanes, of {@link remembranceTokens}
 * @returns for each start, the distance of each lane
 */
export function effectiveRemembrance(
  engine: Pick<Engine, "createStates" | "freeStates" | "prefill">,
  lanes: number,
  read: Prompt["read"],
  { tokens, starts, segmentTokens }: RemembranceOptions,
  onTokens?: (done: number) => void,
): number[][] {
  if (starts.some((start) => start < 0 || start >= tokens)) throw new RangeError(`starts lie within ${tokens} tokens`);
  let done = 0;
  const predictAfter = (start: number): Float32Array[] => {
    const states = engine.createStates(lanes);
    try {
      const prompt: Prompt = {
        lanes,
        tokens: tokens - start,
        read: (lane, from, count) => {
          // The last lane's piece is read when those of the others are.
          if (lane === lanes - 1) onTokens?.((done += lanes * count));
          return read(lane, start + from, count);
        },
      };
      const logits_BV = prefillPrompt(engine, states, prompt, segmentTokens);
      const vocab = logits_BV.length / lanes;
      return Array.from({ length: lanes }, (_, lane) => logits_BV.slice(lane * vocab, (lane + 1) * vocab));
    } finally {
      engine.freeStates(states);
    }
  };
  const whole_B = predictAfter(0);
  return starts.map((start) => {
    const cut_B = start === 0 ? whole_B : predictAfter(start);
    return whole_B.map((whole_V, lane) => totalVariation(whole_V, cut_B[lane]!));
  });
}

/** Tokens that the model is run on for each lane. */
export function remembranceTokens({ tokens, starts }: Pick<RemembranceOptions, "tokens" | "starts">): number {
  return starts.reduce((sum, start) => sum + (start === 0 ? 0 : tokens - start), tokens);
}
