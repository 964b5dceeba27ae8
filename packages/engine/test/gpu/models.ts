import type { ModelSpec } from "@segue/core";

const rest = { expand: 2, dConv: 4, padVocabMultiple: 1, tieEmbeddings: true, rmsEps: 1e-5, chunk: 64 };

export const MODELS = {
  /** Odd widths and two groups: nothing that a fast path could take. */
  odd: { ...rest, layers: 2, dModel: 12, dState: 5, headDim: 6, groups: 2, vocab: 17 },
  /** What the tensor cores take; several heads in a group. */
  even: { ...rest, layers: 2, dModel: 64, dState: 32, headDim: 32, groups: 1, vocab: 72 },
  /** Four groups of three heads, 15 columns each: the gated norm of a group takes one element at a time. */
  oddGroups: { ...rest, layers: 2, dModel: 30, dState: 7, headDim: 5, groups: 4, vocab: 19, tieEmbeddings: false },
  /** What the tensor cores take, in four groups of two heads. */
  evenGroups: { ...rest, layers: 2, dModel: 128, dState: 32, headDim: 32, groups: 4, vocab: 64 },
  wide: { ...rest, layers: 1, dModel: 128, dState: 128, headDim: 64, groups: 2, vocab: 64 },
} as const satisfies Record<string, ModelSpec>;
