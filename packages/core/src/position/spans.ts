import type { LossCurve } from "./collapse.js";

export interface LossSpan {
  readonly fromToken: number;
  /** The first position behind it. */
  readonly toToken: number;
  /** Mean over its positions; null where one is no finite number. */
  readonly loss: number | null;
}

/**
 * The mean loss between two positions; null where one is no number. A bucket across a border belongs to what comes behind it, as in the
 * collapse rule.
 */
export function meanLoss({ bucketTokens, losses }: LossCurve, fromToken = 0, toToken = Infinity): number | null {
  const part = losses.slice(Math.floor(fromToken / bucketTokens), Math.floor(toToken / bucketTokens));
  const sum = part.reduce<number>((total, loss) => total + (loss ?? NaN), 0);
  return part.length > 0 && Number.isFinite(sum) ? sum / part.length : null;
}

/** A curve in a handful of spans: the training length, then up to twice, four times, eight times it, and so on to the curve's end. */
export function lossSpans(curve: LossCurve, trainTokens: number): LossSpan[] {
  const end = curve.losses.length * curve.bucketTokens;
  const spans: LossSpan[] = [];
  for (let from = 0, to = trainTokens; from < end; from = to, to *= 2) {
    const toToken = Math.min(to, end);
    // Buckets wider than a span leave it empty.
    if (Math.floor(from / curve.bucketTokens) === Math.floor(toToken / curve.bucketTokens)) continue;
    spans.push({ fromToken: from, toToken, loss: meanLoss(curve, from, toToken) });
  }
  return spans;
}
