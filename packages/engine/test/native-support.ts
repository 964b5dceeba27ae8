import { readFileSync } from "node:fs";
import { parameterLayout, randomStream, type ModelSpec } from "@segue/core";

export interface GoldenCase {
  readonly name: string;
  readonly model: ModelSpec;
  readonly parameters: Float32Array;
  readonly lanes: number;
  readonly tokens: number;
  readonly input_BT: Int32Array;
  readonly targets_BT: Int32Array;
  readonly logits: Float32Array;
  readonly loss: number;
  /** Of the mean loss, flat as the parameters. */
  readonly gradient: Float32Array;
}

export const GOLDEN_CASES = ["tiny", "small", "wide-head", "untied", "grouped-bc"] as const;

interface StoredTensor {
  readonly dtype: "F32" | "F64" | "I32";
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

function readTensors(file: URL): (name: string) => { shape: number[]; data: Float32Array | Float64Array | Int32Array } {
  const bytes = readFileSync(file);
  const headerBytes = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + headerBytes)) as Record<string, StoredTensor>;
  const kinds = { F32: Float32Array, F64: Float64Array, I32: Int32Array };
  return (name) => {
    const entry = header[name];
    if (!entry) throw new Error(`${file.pathname} has no ${name}`);
    const [from, to] = entry.data_offsets.map((offset) => 8 + headerBytes + offset) as [number, number];
    const copy = new Uint8Array(bytes.subarray(from, to));
    return { shape: entry.shape, data: new kinds[entry.dtype](copy.buffer) };
  };
}

export function readGolden(name: (typeof GOLDEN_CASES)[number]): GoldenCase {
  const folder = new URL(`golden/${name}/`, import.meta.url);
  const config = JSON.parse(readFileSync(new URL("config.json", folder), "utf8")) as Record<string, number> & {
    tie_word_embeddings: boolean;
  };
  const model: ModelSpec = {
    layers: config.num_hidden_layers!,
    dModel: config.hidden_size!,
    dState: config.state_size!,
    headDim: config.head_dim!,
    expand: config.expand!,
    dConv: config.conv_kernel!,
    groups: config.n_groups!,
    chunk: config.chunk_size!,
    vocab: config.vocab_size!,
    padVocabMultiple: 1,
    tieEmbeddings: config.tie_word_embeddings,
    rmsEps: config.layer_norm_epsilon!,
  };
  const weights = readTensors(new URL("model.safetensors", folder));
  const golden = readTensors(new URL("golden.safetensors", folder));
  const flat = (tensor: (name: string) => { data: ArrayLike<number> }, prefix: string): Float32Array => {
    const { entries, size } = parameterLayout(model);
    const result = new Float32Array(size);
    for (const entry of entries) result.set(tensor(prefix + entry.name).data, entry.offset);
    return result;
  };
  const input = golden("input_ids");
  return {
    name,
    model,
    parameters: flat(weights, ""),
    lanes: input.shape[0]!,
    tokens: input.shape[1]!,
    input_BT: input.data as Int32Array,
    targets_BT: golden("targets").data as Int32Array,
    logits: golden("logits").data as Float32Array,
    loss: golden("loss").data[0]!,
    gradient: flat(golden, "grad."),
  };
}

/** Norm of the difference over the norm of what is expected. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let difference = 0;
  let size = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += (actual[i]! - expected[i]!) ** 2;
    size += expected[i]! ** 2;
  }
  return Math.sqrt(difference / (size || 1));
}

/** Largest relative error of any one tensor of a flat vector, with its name. */
export function worstTensor(model: ModelSpec, actual: Float32Array, expected: Float32Array): { name: string; error: number } {
  return parameterLayout(model)
    .entries.map(({ name, offset, size }) => ({
      name,
      error: relativeError(actual.subarray(offset, offset + size), expected.subarray(offset, offset + size)),
    }))
    .reduce((worst, tensor) => (tensor.error > worst.error || Number.isNaN(tensor.error) ? tensor : worst));
}

/** Normal numbers scaled by `scale` around `mean`. */
export function noise(label: string, length: number, scale = 1, mean = 0): Float32Array {
  const random = randomStream(7, label);
  return Float32Array.from({ length }, () => mean + scale * random.normal());
}

/** Parameters with every kind away from its default, and steps and decays as a trained model has them. */
export function noisyParameters(model: ModelSpec, label = "parameters"): Float32Array {
  const { entries, size } = parameterLayout(model);
  const flat = new Float32Array(size);
  for (const { name, offset, size: length, shape } of entries) {
    const values =
      name.endsWith("dt_bias") || name.endsWith("A_log")
        ? noise(label + name, length, 0.5, name.endsWith("A_log") ? 0.5 : -2)
        : shape.length === 1
          ? noise(label + name, length, 0.2, name.endsWith("bias") ? 0 : 1)
          : noise(label + name, length, 0.7 / Math.sqrt(shape.at(-1)!));
    flat.set(values, offset);
  }
  return flat;
}

export function randomTokens(label: string, length: number, vocab: number): Int32Array {
  const random = randomStream(7, label);
  return Int32Array.from({ length }, () => random.below(vocab));
}
