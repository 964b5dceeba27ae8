import { modelWidths, ssmStateFloats } from "../model/sizes.js";
import type { ModelSpec } from "../spec/job-spec.js";

/** Of one head's SSM state, headDim x dState numbers. */
export interface HeadStatistics {
  readonly layer: number;
  readonly head: number;
  readonly mean: number;
  /** Unbiased, as in the paper's figures. */
  readonly variance: number;
  readonly rms: number;
  /** Largest magnitude. */
  readonly largest: number;
}

/**
 * Statistics of every layer's heads in one lane's state, layer by layer (paper.md section 1.3, M2), summed in float64.
 * @param state_F ssm [layers, heads, headDim, dState]; what follows it, the convolution taps, is not read
 * @throws RangeError when it is too short
 */
export function headStatistics(model: ModelSpec, state_F: Float32Array): HeadStatistics[] {
  if (state_F.length < ssmStateFloats(model))
    throw new RangeError(`a state has ${ssmStateFloats(model)} floats, not ${state_F.length}`);
  const { heads } = modelWidths(model);
  const size = model.headDim * model.dState;
  return Array.from({ length: model.layers * heads }, (_, index) => ({
    layer: Math.floor(index / heads),
    head: index % heads,
    ...statisticsOf(state_F.subarray(index * size, (index + 1) * size)),
  }));
}

function statisticsOf(values: Float32Array): Omit<HeadStatistics, "layer" | "head"> {
  const count = values.length;
  let [sum, squares, largest] = [0, 0, 0];
  for (const value of values) {
    sum += value;
    squares += value * value;
    largest = Math.max(largest, Math.abs(value));
  }
  const mean = sum / count;
  // Around the mean in a second pass: the difference of two large sums would cancel.
  let deviations = 0;
  for (const value of values) deviations += (value - mean) ** 2;
  return { mean, variance: count > 1 ? deviations / (count - 1) : 0, rms: Math.sqrt(squares / count), largest };
}

export interface StateSample {
  /** Tokens read before. */
  readonly tokens: number;
  readonly heads: readonly HeadStatistics[];
}

export interface HeadGrowth {
  readonly layer: number;
  readonly head: number;
  /** Largest variance within the training length, and beyond it. */
  readonly within: number;
  readonly beyond: number;
  /** beyond / within; Infinity where there was none. */
  readonly ratio: number;
}

/**
 * How far each head's variance grows beyond what it was within the training length, the fastest growing first: an early sign of state
 * collapse (paper.md section 1.5). Empty when no sample lies on one of the sides.
 */
export function varianceGrowth(samples: readonly StateSample[], trainTokens: number): HeadGrowth[] {
  const within = samples.filter(({ tokens }) => tokens <= trainTokens);
  const beyond = samples.filter(({ tokens }) => tokens > trainTokens);
  const [first] = samples;
  if (!first || within.length === 0 || beyond.length === 0) return [];
  const largest = (of: readonly StateSample[], index: number): number => Math.max(...of.map(({ heads }) => heads[index]!.variance));
  return first.heads
    .map(({ layer, head }, index) => {
      const [before, after] = [largest(within, index), largest(beyond, index)];
      return { layer, head, within: before, beyond: after, ratio: after === 0 ? 0 : after / before };
    })
    .sort((a, b) => b.ratio - a.ratio);
}
