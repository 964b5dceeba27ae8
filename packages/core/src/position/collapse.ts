/** Mean cross-entropy by position: entry b is over the positions from b * bucketTokens on. Null: not a finite number. */
export interface LossCurve {
  readonly bucketTokens: number;
  readonly losses: readonly (number | null)[];
}

export interface CollapseVerdict {
  readonly collapsed: boolean;
  /** Largest loss within the training length. */
  readonly trainLoss: number;
  /** The largest loss beyond it, over `trainLoss`; null when it is no finite number, or nothing lies beyond. */
  readonly worstRatio: number | null;
  /** First position of the bucket with the largest loss beyond the training length; null when nothing lies beyond. */
  readonly worstPosition: number | null;
  /** First position of the first bucket that breaks the rule; null when none does. */
  readonly firstPosition: number | null;
}

/**
 * The paper's rule for state collapse (paper.md section 1.5): the loss at some position exceeds `factor` times the largest loss within the
 * first `trainTokens` tokens. Give it losses that are averaged over prompts. A loss that is no number counts as infinite.
 * @throws RangeError when no bucket lies within the training length, or its losses are not finite: there is nothing to compare with
 */
export function judgeCollapse({ bucketTokens, losses }: LossCurve, trainTokens: number, factor = 2): CollapseVerdict {
  const within = Math.floor(trainTokens / bucketTokens);
  const values = losses.map((loss) => (loss === null || !Number.isFinite(loss) ? Infinity : loss));
  const trainLoss = Math.max(...values.slice(0, within));
  if (!Number.isFinite(trainLoss)) {
    throw new RangeError(`no loss within the training length of ${trainTokens} tokens is known, in buckets of ${bucketTokens}`);
  }
  let worst: number | undefined;
  let first: number | undefined;
  for (let bucket = within; bucket < values.length; bucket++) {
    if (worst === undefined || values[bucket]! > values[worst]!) worst = bucket;
    if (values[bucket]! > factor * trainLoss) first ??= bucket;
  }
  const position = (bucket: number | undefined): number | null => (bucket === undefined ? null : bucket * bucketTokens);
  const ratio = worst === undefined ? NaN : values[worst]! / trainLoss;
  return {
    collapsed: first !== undefined,
    trainLoss,
    worstRatio: Number.isFinite(ratio) ? ratio : null,
    worstPosition: position(worst),
    firstPosition: position(first),
  };
}

/** The mean of curves over the same buckets, each of so many prompts. */
export function meanCurve(parts: readonly { readonly prompts: number; readonly losses: LossCurve["losses"] }[]): (number | null)[] {
  const prompts = parts.reduce((sum, part) => sum + part.prompts, 0);
  const [first] = parts;
  return (first?.losses ?? []).map((_, bucket) => {
    const sum = parts.reduce((total, part) => total + (part.losses[bucket] ?? NaN) * part.prompts, 0);
    return Number.isFinite(sum) ? sum / prompts : null;
  });
}
