/**
 * Speed of the CPU engine for several sizes, on one and two threads, and in the same run that of the limits beside it.
 *
 *     npm run bench:engine -- [--seconds 3] [--sizes toy,small,medium,large,decode,decode8] [--threads 1,2]
 *                             [--openblas PATH] [--operations] [--no-tfjs]
 *
 * Training and scoring: the time that the matrix products alone would take with OpenBLAS, each on its own shape and all at the speed of a
 * large product. Decoding: the time that reading the parameters once would take at the speed of OpenBLAS's matrix-vector product.
 * OpenBLAS (Debian: libopenblas0-pthread) is found by the loader or at PATH; without it the engine's own products stand in and the output
 * says so. Beside the small model, the tfjs engine on WASM trains the same on one thread. `--operations` lists the milliseconds a step
 * spends in each operation, the fewest of all steps.
 */
import { parseArgs } from "node:util";
import { parameterLayout } from "@segue/core";
import { openCpuDevice, type CpuDevice } from "../packages/engine/src/devices/cpu/cpu-device.js";
import { DeviceEngine } from "../packages/engine/src/native/device-engine.js";
import { createTfjsEngine } from "../packages/engine/src/tfjs/tfjs-engine.js";
import { openBlas, ownBlas, type Blas } from "./engine/blas.js";
import { memoryBytesPerSecond, productLimit } from "./engine/limit.js";
import { SIZES, type Size } from "./engine/sizes.js";
import { fastest, workOn } from "./engine/work.js";

const { values: options } = parseArgs({
  options: {
    seconds: { type: "string", default: "3" },
    sizes: { type: "string", default: Object.keys(SIZES).join(",") },
    threads: { type: "string", default: "1,2" },
    openblas: { type: "string" },
    operations: { type: "boolean", default: false },
    tfjs: { type: "boolean", default: true },
  },
  allowNegative: true,
});
const seconds = Number(options.seconds);
const threadCounts = options.threads.split(",").map(Number);

/** The same device, noting the milliseconds spent in each operation. */
function timed(device: CpuDevice, spent: Map<string, number>): CpuDevice {
  const wrap = (name: string, operation: unknown): unknown => {
    if (typeof operation !== "function" || ["floats", "ints", "slice"].includes(name)) return operation;
    return (...args: unknown[]): unknown => {
      const start = performance.now();
      const result = (operation as (...args: unknown[]) => unknown)(...args);
      spent.set(name, (spent.get(name) ?? 0) + performance.now() - start);
      return result;
    };
  };
  return Object.fromEntries(
    Object.entries(device).map(([name, operation]) => [name, wrap(name, operation)]),
  ) as unknown as CpuDevice;
}

const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;

/** @returns tokens per second */
async function measure(name: string, size: Size, threads: number, blas: Blas): Promise<number> {
  const device = await openCpuDevice(threads);
  const spent = new Map<string, number>();
  const engine = new DeviceEngine("cpu", options.operations ? timed(device, spent) : device, size.model);
  const work = workOn(engine, size);
  const least = new Map<string, number>();
  const taken = fastest(seconds, () => {
    spent.clear();
    work();
    for (const [operation, ms] of spent) least.set(operation, Math.min(ms, least.get(operation) ?? Infinity));
  });
  const rate = (size.lanes * size.tokens) / taken;
  const mebibytes = (device.scratchBytes() + engine.arenaBytes) / 2 ** 20;
  console.log(
    `${name.padEnd(8)} ${threads} thread(s) ${rate.toFixed(0).padStart(7)} tokens/s  ${describe(size, taken, threads, blas)}; ` +
      `arena and scratch ${mebibytes.toFixed(0)} MiB`,
  );
  const total = [...least.values()].reduce((sum, ms) => sum + ms, 0);
  for (const [operation, ms] of [...least].sort((a, b) => b[1] - a[1])) {
    console.log(`    ${operation.padEnd(20)} ${ms.toFixed(3).padStart(9)} ms ${percent(ms / total).padStart(6)}`);
  }
  engine.close();
  return rate;
}

/** What was taken beside what it would take at the limit. */
function describe(size: Size, taken: number, threads: number, blas: Blas): string {
  if (size.work === "decode") {
    const speed = memoryBytesPerSecond(blas, threads, seconds / 3);
    const bytes = 4 * parameterLayout(size.model).size;
    const limit = bytes / speed;
    return (
      `${(1000 * taken).toFixed(1)} ms a step, ${percent(limit / taken)} of reading the parameters in ${(1000 * limit).toFixed(1)} ms ` +
      `(${(speed / 1e9).toFixed(1)} GB/s)`
    );
  }
  const limit = productLimit(size, blas, threads, seconds / 30);
  return (
    `${percent(limit.ownShapesSeconds / taken)} of the products' speed on their shapes, ` +
    `${percent(limit.largeShapeSeconds / taken)} of a large product's ${limit.gigaflopsPerSecond.toFixed(0)} GFLOP/s`
  );
}

/** The tfjs engine on WASM, which has one thread, beside the native one on as many. */
async function measureTfjs(size: Size, nativeRate: number): Promise<void> {
  const engine = await createTfjsEngine({ model: size.model, precision: "f32", threads: 1 }, ["wasm"]);
  const rate = (size.lanes * size.tokens) / fastest(seconds, workOn(engine, size));
  console.log(
    `         ${engine.description.detail}: ${rate.toFixed(0)} tokens/s; cpu on one thread is ${(nativeRate / rate).toFixed(1)} times as fast`,
  );
  engine.close();
}

const found = openBlas(options.openblas);
const blas = found ?? (await ownBlas(threadCounts));
console.log(found ? `limits by ${blas.name}` : `no OpenBLAS: limits by ${blas.name}`);
for (const name of options.sizes.split(",")) {
  const size = SIZES[name];
  if (!size) throw new Error(`no size ${name}; there are ${Object.keys(SIZES).join(", ")}`);
  for (const threads of threadCounts) {
    const rate = await measure(name, size, threads, blas);
    if (name === "small" && threads === 1 && options.tfjs) await measureTfjs(size, rate);
  }
}
