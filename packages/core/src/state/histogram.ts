/** Counts of numbers in bins of one width, the last with its upper border. */
export interface Histogram {
  /** Smallest and largest number: the borders of the first and last bin. */
  readonly low: number;
  readonly high: number;
  readonly counts: readonly number[];
}

/** As many as in the paper's figure of an exploding head (paper.md section 1.3, M3). */
export const HISTOGRAM_BINS = 40;

/** Numbers that are not finite are in no bin. When all are the same they are in the first. */
export function histogramOf(values: Float32Array, bins = HISTOGRAM_BINS): Histogram {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const counts = new Array<number>(bins).fill(0);
  if (low > high) return { low: NaN, high: NaN, counts };
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    const bin = high === low ? 0 : Math.min(bins - 1, Math.floor((bins * (value - low)) / (high - low)));
    counts[bin]!++;
  }
  return { low, high, counts };
}
