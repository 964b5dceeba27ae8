import type { CureSpec } from "@segue/core";
import { prefillPrompt } from "../decode.js";
import type { MixingEngine, StateRule } from "./state-rule.js";

/** `count` tokens of a text from number `at` on. */
export type TextReader = (at: number, count: number) => ArrayLike<number>;

const PIECE_TOKENS = 1024;

/**
 * State normalisation (paper.md 2.2): h is scaled by min(1, p / ||h||), with a threshold p for each layer and head: `multiplier` times the norm of its
 * state after `referenceTokens` tokens of a reference text. (The released code enlarges such states instead; that is not reproduced.)
 */
export function normalisation(
  engine: MixingEngine,
  { multiplier, referenceTokens, everyTokens }: Extract<CureSpec, { kind: "normalised" }>,
  reference: TextReader,
): StateRule<undefined> {
  let thresholds_LH: Float32Array | undefined;
  return {
    everyTokens,
    begin: () => undefined,
    apply: (_, states) => {
      thresholds_LH ??= referenceNorms(engine, reference, referenceTokens).map((norm) => norm * multiplier);
      const heads = thresholds_LH.length;
      const norms_BLH = engine.headNorms(states);
      const factors_BLH = norms_BLH.map((norm, index) => Math.min(1, norm > 0 ? thresholds_LH![index % heads]! / norm : 1));
      if (factors_BLH.some((factor) => factor < 1)) engine.mixStates(states, states, factors_BLH, false);
    },
    fork: () => undefined,
    free: () => undefined,
  };
}

function referenceNorms(engine: MixingEngine, read: TextReader, tokens: number): Float32Array {
  const states = engine.createStates(1);
  try {
    prefillPrompt(engine, states, { lanes: 1, tokens, read: (_, at, count) => read(at, count) }, PIECE_TOKENS);
    return engine.headNorms(states);
  } finally {
    engine.freeStates(states);
  }
}
