import { decodeSafetensors, SegueError, tensorToFloat32, type SafetensorsTensor } from "@segue/core";
import { finite } from "../data-table.js";

export type HeadQuantity = "ssm.mean" | "ssm.variance" | "input.dt" | "input.b" | "input.x" | "input.retention";

/** A file of state statistics (docs/reference/state-statistics.md), by heads and layers. */
export interface StateTrace {
  /** Tokens read before each sample. */
  readonly tokens: readonly number[];
  readonly layers: number;
  /** Of one layer. */
  readonly heads: number;
  /** Whether the engine could tell what entered the recurrence. */
  readonly hasInputs: boolean;
  /** @param index layer * heads + head; null: no finite number */
  head(quantity: HeadQuantity, index: number): (number | null)[];
  conv(quantity: "conv.mean" | "conv.variance", layer: number): (number | null)[];
  /** Of a head, at each place where they were taken. */
  histograms(index: number): { tokens: number; low: number; high: number; counts: number[] }[];
}

/** @throws SegueError STATES_INVALID when it is no file of state statistics, and SAFETENSORS_INVALID */
export function readStates(file: Uint8Array): StateTrace {
  const tensors = decodeSafetensors(file);
  const tensor = (name: string): SafetensorsTensor => {
    const found = tensors.get(name);
    if (!found)
      throw new SegueError("STATES_INVALID", `The file holds no tensor ${name}; it is not what \`segue states --out\` writes.`);
    return found;
  };
  const floats = new Map<string, Float32Array>();
  const values = (name: string): Float32Array => {
    const known = floats.get(name) ?? tensorToFloat32(tensor(name));
    floats.set(name, known);
    return known;
  };
  const [samples = 0, layers = 0, heads = 0] = tensor("ssm.variance").shape;
  const tokens = integers(tensor("tokens"));
  if (tokens.length !== samples || samples === 0 || layers * heads === 0)
    throw new SegueError("STATES_INVALID", "The shapes of `tokens` and `ssm.variance` in the file do not belong together.");
  const course = (name: string, width: number, index: number): (number | null)[] => {
    const all = values(name);
    return tokens.map((_, sample) => finite(all[sample * width + index]));
  };
  return {
    tokens,
    layers,
    heads,
    hasInputs: tensors.has("input.retention"),
    head: (quantity, index) => course(quantity, layers * heads, index),
    conv: (quantity, layer) => course(quantity, layers, layer),
    histograms: (index) => {
      if (!tensors.has("histogram.tokens")) return [];
      const counts = integers(tensor("histogram.counts"));
      const bins = tensor("histogram.counts").shape[3] ?? 0;
      return integers(tensor("histogram.tokens")).map((place, at) => {
        const entry = at * layers * heads + index;
        const [low, high] = [values("histogram.low")[entry] ?? NaN, values("histogram.high")[entry] ?? NaN];
        return { tokens: place, low, high, counts: counts.slice(entry * bins, (entry + 1) * bins) };
      });
    },
  };
}

function integers({ data, dtype, name }: SafetensorsTensor): number[] {
  if (dtype !== "I32") throw new SegueError("STATES_INVALID", `The tensor ${name} of the file is not of integers.`);
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  return Array.from({ length: data.length / 4 }, (_, index) => view.getInt32(4 * index, true));
}
