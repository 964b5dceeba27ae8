/** One point of a training curve. NaN stands for a value that was not recorded. */
export interface SeriesPoint {
  /** Optimizer steps applied when the values held. */
  readonly step: number;
  readonly loss: number;
  readonly learningRate: number;
  readonly gradientNorm: number;
  readonly tokensPerSecond: number;
  readonly tokens: number;
}

/** Columns of a training curve as JSON carries them; null where a value was not recorded or not finite. */
export interface SeriesColumns {
  readonly step: number[];
  readonly loss: (number | null)[];
  readonly learningRate: (number | null)[];
  readonly gradientNorm: (number | null)[];
  readonly tokensPerSecond: (number | null)[];
  readonly tokens: (number | null)[];
}

/** Steps per entry of the three streams of an attempt: `train`, `train10`, `train100`. */
export type Resolution = 1 | 10 | 100;

/** Entries a stream keeps before the oldest are trimmed (docs/reference/redis.md). */
const STREAM_CAP = 20_000;
/** Entries read for each point shown: finer than the screen, so that spikes still move the mean, yet bounded. */
const READ_AHEAD = 10;

/** The finest stream that still reaches back to step 0 and stays within `READ_AHEAD` entries per point. */
export function chooseResolution(steps: number, points: number): Resolution {
  const affordable = Math.min(points * READ_AHEAD, STREAM_CAP);
  if (steps <= affordable) return 1;
  return steps / 10 <= affordable ? 10 : 100;
}

/** Reads the field list of one stream entry: `step loss lr gnorm tps tokens`; undefined when it has no step. */
export function parseEntry(fields: readonly string[]): SeriesPoint | undefined {
  const values = new Map<string, number>();
  for (let index = 0; index + 1 < fields.length; index += 2) {
    const text = fields[index + 1] ?? "";
    values.set(fields[index] ?? "", text === "" ? NaN : Number(text));
  }
  const value = (name: string): number => values.get(name) ?? NaN;
  const step = value("step");
  if (!Number.isSafeInteger(step)) return undefined;
  return {
    step,
    loss: value("loss"),
    learningRate: value("lr"),
    gradientNorm: value("gnorm"),
    tokensPerSecond: value("tps"),
    tokens: value("tokens"),
  };
}

/** At most `count` points, each the mean of a bucket of consecutive ones and placed at the bucket's last step. */
export function downsample(points: readonly SeriesPoint[], count: number): SeriesPoint[] {
  if (points.length <= count) return [...points];
  const buckets: SeriesPoint[] = [];
  for (let bucket = 0; bucket < count; bucket++) {
    const members = points.slice(Math.floor((bucket * points.length) / count), Math.floor(((bucket + 1) * points.length) / count));
    const last = members.at(-1);
    if (last === undefined) continue;
    const mean = (value: (point: SeriesPoint) => number): number =>
      members.reduce((sum, point) => sum + value(point), 0) / members.length;
    buckets.push({
      step: last.step,
      loss: mean((point) => point.loss),
      learningRate: last.learningRate,
      gradientNorm: mean((point) => point.gradientNorm),
      tokensPerSecond: mean((point) => point.tokensPerSecond),
      tokens: last.tokens,
    });
  }
  return buckets;
}

export function toColumns(points: readonly SeriesPoint[]): SeriesColumns {
  const column = (value: (point: SeriesPoint) => number): (number | null)[] =>
    points.map((point) => (Number.isFinite(value(point)) ? value(point) : null));
  return {
    step: points.map((point) => point.step),
    loss: column((point) => point.loss),
    learningRate: column((point) => point.learningRate),
    gradientNorm: column((point) => point.gradientNorm),
    tokensPerSecond: column((point) => point.tokensPerSecond),
    tokens: column((point) => point.tokens),
  };
}
