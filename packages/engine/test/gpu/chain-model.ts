import type { ModelSpec } from "@segue/core";
import type { AdamWStep, SegmentBatch } from "../../src/engine.js";
import { randomTokens } from "../native-support.js";

/** A small model, and a text that it can learn. */
export const CHAIN_MODEL: ModelSpec = {
  ...{ layers: 4, dModel: 128, dState: 64, headDim: 32, expand: 2, dConv: 4, groups: 1, chunk: 64, vocab: 64, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};

/** Each token is one of two that follow from the one before: something to learn, and something that cannot be known. */
export function chainBatch(label: string, lanes: number, tokens: number): SegmentBatch {
  const rows = lanes * tokens;
  const coins = randomTokens(label, rows + 1, 2);
  const chain = new Int32Array(rows + 1);
  for (let i = 1; i < chain.length; i++) chain[i] = (chain[i - 1]! * 5 + 7 + coins[i]! * 11) % CHAIN_MODEL.vocab;
  return { lanes, tokens, tokens_BT: chain.slice(0, -1), labels_BT: chain.slice(1) };
}

export function adamWStep(step: number, learningRate: number, totalWeight: number): AdamWStep {
  const optimizer = { learningRate: 3e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };
  return { optimizer, learningRate, step, totalWeight };
}
