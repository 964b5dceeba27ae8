import { naturalLog, type Random } from "./random.js";

const LEVELS = 2 ** 16;

/**
 * Fills an array with normal numbers, float32, about ten times as fast as {@link Random.normal}: each is one of 65,536 equally probable
 * quantiles, two of them from one random word. They reach to 4.3 standard deviations.
 */
export function fillNormal(random: Random, into: Float32Array, mean: number, std: number): void {
  const quantiles = normalQuantiles();
  for (let i = 0; i < into.length; i += 2) {
    const word = random.uint32();
    into[i] = mean + std * (quantiles[word >>> 16] ?? 0);
    if (i + 1 < into.length) into[i + 1] = mean + std * (quantiles[word & 0xffff] ?? 0);
  }
}

let table: Float64Array | undefined;

/** The middles of equally probable slices of the standard normal distribution, scaled to a variance of exactly 1. */
function normalQuantiles(): Float64Array {
  if (table) return table;
  const raw = Float64Array.from({ length: LEVELS / 2 }, (_, i) => quantile((i + 0.5) / LEVELS));
  const variance = raw.reduce((sum, value) => sum + value * value, 0) / raw.length;
  table = new Float64Array(LEVELS);
  for (const [i, value] of raw.entries()) {
    table[i] = value / Math.sqrt(variance);
    table[LEVELS - 1 - i] = -value / Math.sqrt(variance);
  }
  return table;
}

/** The standard normal quantile of a probability in (0, 1/2], by P. J. Acklam's rational approximation (relative error 1.2e-9). */
function quantile(probability: number): number {
  if (probability < 0.02425) {
    const q = Math.sqrt(-2 * naturalLog(probability));
    return polynomial(TAIL_NUMERATOR, q) / polynomial(TAIL_DENOMINATOR, q);
  }
  const q = probability - 0.5;
  return (q * polynomial(CENTRE_NUMERATOR, q * q)) / polynomial(CENTRE_DENOMINATOR, q * q);
}

/** Highest power first. */
function polynomial(coefficients: readonly number[], x: number): number {
  return coefficients.reduce((sum, coefficient) => sum * x + coefficient, 0);
}

const CENTRE_NUMERATOR = [
  -3.969683028665376e1, 2.209460984245205e2, -2.759285104469687e2, 1.38357751867269e2, -3.066479806614716e1, 2.506628277459239,
];
const CENTRE_DENOMINATOR = [
  -5.447609879822406e1, 1.615858368580409e2, -1.556989798598866e2, 6.680131188771972e1, -1.328068155288572e1, 1,
];
const TAIL_NUMERATOR = [
  -7.784894002430293e-3, -3.223964580411365e-1, -2.400758277161838, -2.549732539343734, 4.374664141464968, 2.938163982698783,
];
const TAIL_DENOMINATOR = [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416, 1];
