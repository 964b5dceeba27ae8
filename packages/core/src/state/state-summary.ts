import type { StateSample } from "./state-sample.js";

export interface HeadGrowth {
  readonly layer: number;
  readonly head: number;
  /** Largest variance within the training length, and beyond it. */
  readonly within: number;
  readonly beyond: number;
  /** beyond / within; Infinity where there was none, or where one of them is no finite number. */
  readonly ratio: number;
}

/**
 * How far each head's variance grows beyond what it was within the training length, the fastest growing first: an early sign of state
 * collapse (paper.md section 1.5). Empty when no sample lies on one of the sides.
 */
export function varianceGrowth(samples: readonly Pick<StateSample, "tokens" | "heads">[], trainTokens: number): HeadGrowth[] {
  const within = samples.filter(({ tokens }) => tokens <= trainTokens);
  const beyond = samples.filter(({ tokens }) => tokens > trainTokens);
  const [first] = samples;
  if (!first || within.length === 0 || beyond.length === 0) return [];
  const largest = (of: typeof samples, index: number): number => Math.max(...of.map(({ heads }) => heads[index]!.variance));
  return first.heads
    .map(({ layer, head }, index) => {
      const [before, after] = [largest(within, index), largest(beyond, index)];
      const ratio = after === 0 ? 0 : after / before;
      return { layer, head, within: before, beyond: after, ratio: Number.isNaN(ratio) ? Infinity : ratio };
    })
    .sort((a, b) => (a.ratio === b.ratio ? 0 : b.ratio - a.ratio));
}

export interface HeadShare {
  readonly layer: number;
  readonly head: number;
  readonly share: number;
}

/** What a trace comes to in a few numbers. */
export interface StateSummary {
  readonly samples: number;
  /** The fastest growing heads. */
  readonly growth: readonly HeadGrowth[];
  /** The heads that keep most of the first token at the training length, or at the end of a shorter text. */
  readonly retention: readonly HeadShare[];
  /** The heads whose outlier channels have most of the state's energy at the end. */
  readonly outliers: readonly HeadShare[];
}

const SHOWN = 16;

export function summariseStates(samples: readonly StateSample[], trainTokens: number): StateSummary {
  const last = samples.at(-1);
  const trained = samples.findLast(({ tokens }) => tokens <= trainTokens) ?? samples[0];
  const most = (sample: StateSample | undefined, share: (index: number) => number | undefined): HeadShare[] =>
    (sample?.heads ?? [])
      .flatMap(({ layer, head }, index) => {
        const value = share(index);
        return value === undefined ? [] : [{ layer, head, share: value }];
      })
      .sort((a, b) => b.share - a.share)
      .slice(0, SHOWN);
  return {
    samples: samples.length,
    growth: varianceGrowth(samples, trainTokens).slice(0, SHOWN),
    retention: most(trained, (index) => trained?.inputs?.[index]?.retention),
    outliers: most(last, (index) => last?.heads[index]?.outlierShare),
  };
}
