import { selectAt } from "./select.js";

/** Of a set of float32 numbers, summed in float64. All are NaN when one of the numbers is no finite number. */
export interface ValueStatistics {
  readonly mean: number;
  /** Unbiased, as in the paper's figures. */
  readonly variance: number;
  readonly rms: number;
  /** The mean of the two in the middle where there is no one. */
  readonly median: number;
  /** Largest magnitude. */
  readonly largest: number;
  /** Share of the sum of squares that the largest 1 % of the numbers has, at least one of them; 0 when all are zero. Of a normal distribution it is 8 %. */
  readonly outlierShare: number;
}

const OUTLIERS = 0.01;
const NOT_FINITE: ValueStatistics = { mean: NaN, variance: NaN, rms: NaN, median: NaN, largest: NaN, outlierShare: NaN };

export function valueStatistics(values: Float32Array): ValueStatistics {
  const count = values.length;
  let [sum, squares, largest] = [0, 0, 0];
  for (const value of values) {
    sum += value;
    squares += value * value;
    largest = Math.max(largest, Math.abs(value));
  }
  // No sum of finite float32 numbers reaches the end of float64.
  if (!Number.isFinite(squares)) return NOT_FINITE;
  const mean = sum / count;
  // Around the mean in a second pass: the difference of two large sums would cancel.
  let deviations = 0;
  for (const value of values) deviations += (value - mean) ** 2;
  return {
    mean,
    variance: count > 1 ? deviations / (count - 1) : 0,
    rms: Math.sqrt(squares / count),
    median: medianOf(values.slice()),
    largest,
    outlierShare: squares === 0 ? 0 : outlierSquares(values) / squares,
  };
}

/** @param values reordered */
function medianOf(values: Float32Array): number {
  const half = values.length >>> 1;
  const upper = selectAt(values, half);
  if (values.length % 2 === 1) return upper;
  let lower = -Infinity;
  for (let index = 0; index < half; index++) lower = Math.max(lower, values[index]!);
  return (lower + upper) / 2;
}

function outlierSquares(values: Float32Array): number {
  const magnitudes = values.map(Math.abs);
  const first = values.length - Math.max(1, Math.floor(OUTLIERS * values.length));
  selectAt(magnitudes, first);
  let squares = 0;
  for (const magnitude of magnitudes.subarray(first)) squares += magnitude * magnitude;
  return squares;
}
