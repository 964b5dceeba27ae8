import { encodeSafetensors, type SafetensorsTensor } from "../checkpoint/safetensors.js";
import { modelWidths } from "../model/sizes.js";
import type { ModelSpec } from "../spec/job-spec.js";
import { HISTOGRAM_BINS } from "./histogram.js";
import type { StateSample } from "./state-sample.js";

const VALUE_STATISTICS = ["mean", "variance", "rms", "median", "largest", "outlierShare"] as const;
const INPUTS = ["dt", "x", "b", "c", "retention"] as const;
/** Of `__metadata__`: what a reader may rely on. */
const FORMAT = "segue-states-1";

/**
 * A trace of states as a safetensors file (docs/reference/state-statistics.md): F32 but for positions and counts, which are I32. With S samples,
 * K of them with histograms: `tokens` [S]; `ssm.<statistic>` [S, layers, heads]; `conv.<statistic>` [S, layers]; `input.<quantity>`
 * [S, layers, heads]; `histogram.tokens` [K], `histogram.low` and `.high` [K, layers, heads], `histogram.counts` [K, layers, heads, 40].
 * @param metadata texts for `__metadata__`, such as what was read
 */
export function packStates(
  model: ModelSpec,
  samples: readonly StateSample[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  const { layers } = model;
  const { heads } = modelWidths(model);
  const of = samples.length;
  const tensors: SafetensorsTensor[] = [
    int32(
      "tokens",
      [of],
      samples.map(({ tokens }) => tokens),
    ),
  ];
  for (const name of VALUE_STATISTICS) {
    tensors.push(
      float32(
        `ssm.${name}`,
        [of, layers, heads],
        samples.flatMap((sample) => sample.heads.map((head) => head[name])),
      ),
    );
    tensors.push(
      float32(
        `conv.${name}`,
        [of, layers],
        samples.flatMap((sample) => sample.conv.map((layer) => layer[name])),
      ),
    );
  }
  if (samples.every(({ inputs }) => inputs !== undefined)) {
    for (const name of INPUTS) {
      const values = samples.flatMap(({ inputs = [] }) => inputs.map((input) => input[name]));
      tensors.push(float32(`input.${name}`, [of, layers, heads], values));
    }
  }
  const chosen = samples.filter(({ histograms }) => histograms !== undefined);
  if (chosen.length > 0) {
    const histograms = chosen.flatMap((sample) => sample.histograms ?? []);
    const shape = [chosen.length, layers, heads];
    tensors.push(
      int32(
        "histogram.tokens",
        [chosen.length],
        chosen.map(({ tokens }) => tokens),
      ),
      float32(
        "histogram.low",
        shape,
        histograms.map(({ low }) => low),
      ),
      float32(
        "histogram.high",
        shape,
        histograms.map(({ high }) => high),
      ),
      int32(
        "histogram.counts",
        [...shape, HISTOGRAM_BINS],
        histograms.flatMap(({ counts }) => counts),
      ),
    );
  }
  return encodeSafetensors(tensors, { ...metadata, format: FORMAT });
}

/** Of the file, without its header; known before anything is computed. */
export function packedStateBytes(model: ModelSpec, samples: number, histograms: number): number {
  const { layers } = model;
  const { heads } = modelWidths(model);
  const perSample = 1 + VALUE_STATISTICS.length * layers * (heads + 1) + INPUTS.length * layers * heads;
  return 4 * (samples * perSample + histograms * (1 + layers * heads * (2 + HISTOGRAM_BINS)));
}

function float32(name: string, shape: number[], values: readonly number[]): SafetensorsTensor {
  return { name, dtype: "F32", shape, data: bytesOf(Float32Array.from(values)) };
}

function int32(name: string, shape: number[], values: readonly number[]): SafetensorsTensor {
  return { name, dtype: "I32", shape, data: bytesOf(Int32Array.from(values)) };
}

/** Every machine Node runs on is little-endian, as the format is. */
function bytesOf(array: Float32Array | Int32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
