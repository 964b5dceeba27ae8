import { convStateFloats, laneStateFloats, parameterLayout, ssmStateFloats } from "../model/sizes.js";
import type { ModelSpec } from "../spec/job-spec.js";
import type { Point } from "./fit.js";

/** The paper's lengths are in units of 1,024 tokens, its state sizes in millions of floats. */
export const CAPACITY_UNITS = { tokens: 1024, stateFloats: 1e6 } as const;

/** A length that was measured of a state size, as the laws have it. */
export function capacityPoint(stateFloats: number, tokens: number): Point {
  return { x: stateFloats / CAPACITY_UNITS.stateFloats, y: tokens / CAPACITY_UNITS.tokens };
}

/** The paper's laws (paper.md section 5): x is the state size in millions of floats, y a length in units of 1,024 tokens. */
export const CAPACITY_LAWS = {
  forget: { slope: 5.172, intercept: -4.469 },
  recall: { base: 1.365, scale: 4.756, offset: -0.742 },
} as const;

/** What the laws were fitted to, read off the paper's figures; the origin is part of the authors' data (paper.md section 5). */
export const CAPACITY_POINTS: Readonly<Record<"forget" | "recall", readonly Point[]>> = {
  forget: points([0, 0], [1.08, 1], [1.6, 2], [2.4, 8], [4.8, 16], [12.9, 64]),
  recall: points([0, 0], [1.08, 1], [1.6, 2], [2.4, 4], [4.8, 16], [12.9, 256]),
};

/** State sizes in millions that the paper measured; beyond them its laws are extrapolations. */
const MEASURED = { least: 1.08, most: 12.9 } as const;

export interface ModelCapacity {
  readonly parameters: number;
  /** Of one lane: the paper's state size, three convolution taps included. */
  readonly stateFloats: number;
  readonly ssmStateFloats: number;
  readonly convStateFloats: number;
  /** Weights in float32. */
  readonly parameterBytes: number;
  /** Weights, gradient and AdamW's two moments in float32, without activations. */
  readonly trainingBytes: number;
  /** Of one lane, in float32. */
  readonly stateBytes: number;
  /** Training length from which the paper's law expects robust forgetting; null where the law gives no positive length. */
  readonly forgetTokens: number | null;
  /** Longest context of near-perfect passkey retrieval by the paper's law; null where the law gives no positive length. */
  readonly recallTokens: number | null;
  /** Why not to trust the two, in sentences. */
  readonly warnings: readonly string[];
}

export function modelCapacity(model: ModelSpec): ModelCapacity {
  const parameters = parameterLayout(model).size;
  const stateFloats = laneStateFloats(model);
  const size = stateFloats / CAPACITY_UNITS.stateFloats;
  const { forget, recall } = CAPACITY_LAWS;
  const forgetTokens = tokensOrNull(forget.slope * size + forget.intercept);
  const recallTokens = tokensOrNull(recall.scale * (recall.base ** size - 1) + recall.offset);
  return {
    parameters,
    stateFloats,
    ssmStateFloats: ssmStateFloats(model),
    convStateFloats: convStateFloats(model),
    parameterBytes: 4 * parameters,
    trainingBytes: 16 * parameters,
    stateBytes: 4 * stateFloats,
    forgetTokens,
    recallTokens,
    warnings: warningsFor(size, forgetTokens),
  };
}

function warningsFor(size: number, forgetTokens: number | null): string[] {
  const state = `a state of ${size.toFixed(3)}M floats`;
  if (forgetTokens === null) {
    const zero = (-CAPACITY_LAWS.forget.intercept / CAPACITY_LAWS.forget.slope).toFixed(3);
    return [`The linear law of forgetting means nothing under ${zero}M floats, where it is not positive: ${state} is below that.`];
  }
  if (size < MEASURED.least)
    return [`The laws are extrapolated: the paper measured no state below ${MEASURED.least}M floats, this is ${state}.`];
  // Models within a hundredth of the largest are that one.
  if (size > 1.01 * MEASURED.most) {
    const found = "at 19.3M, where the law gives 95K, training at less than 128K was not enough";
    return [`The laws are extrapolated: the paper measured no state above ${MEASURED.most}M floats, this is ${state}; ${found}.`];
  }
  return [];
}

function tokensOrNull(lengthK: number): number | null {
  return lengthK > 0 ? Math.round(lengthK * CAPACITY_UNITS.tokens) : null;
}

function points(...pairs: readonly (readonly [number, number])[]): Point[] {
  return pairs.map(([x, y]) => ({ x, y }));
}
