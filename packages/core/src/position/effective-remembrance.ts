/**
 * Total variation distance of the distributions that two rows of logits stand for: half the sum of the differences, from 0 (the same) to 1
 * (apart). In float64. NaN when a logit is no number.
 */
export function totalVariation(a_V: ArrayLike<number>, b_V: ArrayLike<number>): number {
  const [p_V, q_V] = [probabilities(a_V), probabilities(b_V)];
  let sum = 0;
  for (let id = 0; id < p_V.length; id++) sum += Math.abs(p_V[id]! - q_V[id]!);
  return sum / 2;
}

function probabilities(logits_V: ArrayLike<number>): Float64Array {
  const p_V = Float64Array.from(logits_V);
  let largest = -Infinity;
  for (const logit of p_V) largest = Math.max(largest, logit);
  let sum = 0;
  for (let id = 0; id < p_V.length; id++) sum += p_V[id] = Math.exp(p_V[id]! - largest);
  for (let id = 0; id < p_V.length; id++) p_V[id]! /= sum;
  return p_V;
}

/** Places t of a context of `tokens` tokens at which effective remembrance is measured when none are given: 15, equally far apart. */
export function remembranceStarts(tokens: number): number[] {
  const starts = Array.from({ length: 15 }, (_, index) => Math.floor(((index + 1) * tokens) / 16));
  return [...new Set(starts)].filter((start) => start > 0 && start < tokens);
}
