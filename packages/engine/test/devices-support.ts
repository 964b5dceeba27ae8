import assert from "node:assert/strict";
import { randomStream } from "@segue/core";
import { openCpuDevice, type CpuDevice } from "../src/devices/cpu/cpu-device.js";
import type { Device } from "../src/devices/device.js";
import { noise, relativeError } from "./native-support.js";

export const CPU_VARIANTS = ["avx512", "avx2", "baseline"] as const;

/** A CPU device of one variant, or undefined where this processor cannot run it. */
export async function cpuVariant(variant: string, threads: number): Promise<CpuDevice | undefined> {
  try {
    return await openCpuDevice(threads, { ...process.env, SEGUE_CPU_VARIANT: variant });
  } catch (e) {
    if (String(e).includes("cannot run the CPU variant")) return undefined;
    throw e;
  }
}

/** Makes the same inputs on any device, and outputs that hold NaN until somebody writes them. */
export interface Bench<F, I> {
  readonly device: Device<F, I>;
  floats(values: ArrayLike<number>): F;
  noise(label: string, length: number, scale?: number, mean?: number): F;
  poison(length: number): F;
  ints(values: ArrayLike<number>): I;
}

export function benchOf<F, I>(device: Device<F, I>): Bench<F, I> {
  const floats = (values: ArrayLike<number>): F => {
    const made = device.floats(values.length);
    device.upload(Float32Array.from(values), made);
    return made;
  };
  return {
    device,
    floats,
    noise: (label, length, scale, mean) => floats(noise(label, length, scale, mean)),
    poison: (length) => floats(new Float32Array(length).fill(NaN)),
    ints: (values) => {
      const made = device.ints(values.length);
      device.uploadInts(values, made);
      return made;
    },
  };
}

/** Named results of an operation and their lengths. */
export type Results<F> = Record<string, { readonly data: F; readonly length: number }>;

/** An operation on any device, with its results. */
export type DeviceCase = <F, I>(bench: Bench<F, I>) => Results<F>;

export function resultsOn<F, I>(device: Device<F, I>, run: DeviceCase): Record<string, Float32Array> {
  return Object.fromEntries(
    Object.entries(run(benchOf(device))).map(([name, { data, length }]) => {
      const values = new Float32Array(length);
      device.download(data, values);
      return [name, values];
    }),
  );
}

/** In relative L2. Gradients (named d...) are sums whose terms partly cancel. */
const TOLERANCE = { outputs: 1e-5, gradients: 1e-4 };

/** Equal within {@link TOLERANCE} where written, and unwritten (NaN) at the same places. */
export function assertAgrees(actual: Record<string, Float32Array>, expected: Record<string, Float32Array>): void {
  for (const [name, values] of Object.entries(expected)) {
    const found = actual[name]!;
    const written = [...values.keys()].filter((i) => !Number.isNaN(values[i]!));
    assert.ok(written.length > 0, `${name}: the reference wrote nothing`);
    values.forEach((value, i) =>
      assert.equal(Number.isNaN(found[i]!), Number.isNaN(value), `${name}[${i}]: ${found[i]} for ${value}`),
    );
    const pick = (from: Float32Array): Float32Array => Float32Array.from(written, (i) => from[i]!);
    const error = relativeError(pick(found), pick(values));
    const tolerance = /^d[A-Z]/.test(name) ? TOLERANCE.gradients : TOLERANCE.outputs;
    assert.ok(error < tolerance, `${name}: relative error ${error}`);
  }
}

/** 0 or 1 per row, about one in `every`; the rows of `always` for certain. */
export function someResets(label: string, rows: number, every: number, always: readonly number[] = []): Int32Array {
  const random = randomStream(11, label);
  return Int32Array.from({ length: rows }, (_, r) => (always.includes(r) || random.below(every) === 0 ? 1 : 0));
}
