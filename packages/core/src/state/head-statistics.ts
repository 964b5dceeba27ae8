import { laneStateFloats, modelWidths, ssmStateFloats } from "../model/sizes.js";
import type { ModelSpec } from "../spec/job-spec.js";
import { histogramOf, type Histogram } from "./histogram.js";
import { valueStatistics, type ValueStatistics } from "./value-statistics.js";

/** Of one head's SSM state, headDim x dState numbers. A channel is one of these numbers. */
export interface HeadStatistics extends ValueStatistics {
  readonly layer: number;
  readonly head: number;
}

/**
 * Statistics of every layer's heads in one lane's state, layer by layer (paper.md section 1.3, M2).
 * @param state_F ssm [layers, heads, headDim, dState]; what follows it, the convolution taps, is not read
 * @throws RangeError when it is too short
 */
export function headStatistics(model: ModelSpec, state_F: Float32Array): HeadStatistics[] {
  return headsOf(model, state_F).map(({ layer, head, values }) => ({ layer, head, ...valueStatistics(values) }));
}

/** Distribution of every head's channels (paper.md section 1.3, M3), layer by layer; arguments as of {@link headStatistics}. */
export function headHistograms(model: ModelSpec, state_F: Float32Array): Histogram[] {
  return headsOf(model, state_F).map(({ values }) => histogramOf(values));
}

/**
 * Statistics of every layer's convolution taps in one lane's state.
 * @param state_F ssm, then conv [layers, dConv - 1, convDim]
 * @throws RangeError when it is too short
 */
export function convStatistics(model: ModelSpec, state_F: Float32Array): ValueStatistics[] {
  checkLength(state_F, laneStateFloats(model));
  const size = (model.dConv - 1) * modelWidths(model).convDim;
  const first = ssmStateFloats(model);
  return Array.from({ length: model.layers }, (_, layer) =>
    valueStatistics(state_F.subarray(first + layer * size, first + (layer + 1) * size)),
  );
}

function headsOf(model: ModelSpec, state_F: Float32Array): { layer: number; head: number; values: Float32Array }[] {
  checkLength(state_F, ssmStateFloats(model));
  const { heads } = modelWidths(model);
  const size = model.headDim * model.dState;
  return Array.from({ length: model.layers * heads }, (_, index) => ({
    layer: Math.floor(index / heads),
    head: index % heads,
    values: state_F.subarray(index * size, (index + 1) * size),
  }));
}

function checkLength({ length }: Float32Array, floats: number): void {
  if (length < floats) throw new RangeError(`a state has ${floats} floats, not ${length}`);
}
