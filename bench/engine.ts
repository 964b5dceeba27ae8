/**
 * Tokens per second of the CPU engine for four sizes, on one and two threads.
 *
 *     node --import=tsx --conditions=segue-source bench/engine.ts [--seconds 3] [--sizes toy,small] [--threads 1,2]
 *                                                                  [--openblas PATH] [--operations]
 *
 * The limit beside each figure is the rate at which the model's matrix products alone would run at the speed of a large sgemm on the
 * same threads: OpenBLAS where it is found (at PATH, or by the loader), else this engine's own. `--operations` adds the milliseconds per
 * step of each operation.
 */
import { parseArgs } from "node:util";
import koffi from "koffi";
import { modelWidths, parameterLayout, type ModelSpec } from "@segue/core";
import { openCpuDevice, type CpuDevice } from "../packages/engine/src/devices/cpu/cpu-device.js";
import { DeviceEngine } from "../packages/engine/src/native/device-engine.js";

interface Size {
  readonly model: ModelSpec;
  readonly lanes: number;
  readonly tokens: number;
  readonly training: boolean;
}

const mamba2 = (sizes: Pick<ModelSpec, "layers" | "dModel" | "headDim" | "dState" | "chunk" | "vocab">): ModelSpec => ({
  expand: 2,
  dConv: 4,
  groups: 1,
  padVocabMultiple: 1,
  tieEmbeddings: true,
  rmsEps: 1e-5,
  ...sizes,
});

const SIZES: Readonly<Record<string, Size>> = {
  toy: {
    model: mamba2({ layers: 2, dModel: 64, headDim: 32, dState: 64, chunk: 64, vocab: 256 }),
    ...{ lanes: 8, tokens: 256, training: true },
  },
  small: {
    model: mamba2({ layers: 2, dModel: 128, headDim: 32, dState: 32, chunk: 64, vocab: 256 }),
    ...{ lanes: 8, tokens: 256, training: true },
  },
  medium: {
    model: mamba2({ layers: 4, dModel: 512, headDim: 64, dState: 64, chunk: 64, vocab: 256 }),
    ...{ lanes: 8, tokens: 256, training: true },
  },
  large: {
    model: mamba2({ layers: 12, dModel: 768, headDim: 64, dState: 128, chunk: 64, vocab: 50288 }),
    ...{ lanes: 1, tokens: 512, training: false },
  },
};

const { values: options } = parseArgs({
  options: {
    seconds: { type: "string", default: "3" },
    sizes: { type: "string", default: Object.keys(SIZES).join(",") },
    threads: { type: "string", default: "1,2" },
    openblas: { type: "string" },
    operations: { type: "boolean", default: false },
  },
});

/** Shortest time of one call, in seconds, over about `seconds` of calls: other work on the machine only ever adds. */
function fastest(seconds: number, call: () => void): number {
  call();
  let best = Infinity;
  const end = performance.now() + 1000 * seconds;
  do {
    const start = performance.now();
    call();
    best = Math.min(best, (performance.now() - start) / 1000);
  } while (performance.now() < end);
  return best;
}

/** Multiply-adds count as two. A backward pass has two products for each of the forward pass. */
function matmulFlopsPerToken({ model, training }: Size): number {
  const { dInner, heads, dInProj } = modelWidths(model);
  const scan = 2 * model.chunk * model.dState * model.groups + heads * model.headDim * (2 * model.chunk + 4 * model.dState);
  const layer = 2 * model.dModel * (dInProj + dInner) + scan;
  return (training ? 3 : 1) * (model.layers * layer + 2 * model.dModel * model.vocab);
}

/** Plausible weights; any will do for timing. */
function someParameters(model: ModelSpec): Float32Array {
  const { entries, size } = parameterLayout(model);
  const flat = new Float32Array(size);
  let state = 1;
  for (const { name, shape, offset, size: length } of entries) {
    const scale = shape.length > 1 ? 1 / Math.sqrt(shape.at(-1)!) : 0;
    const mean = shape.length > 1 ? 0 : name.endsWith("dt_bias") ? -4 : 1;
    for (let i = offset; i < offset + length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      flat[i] = mean + scale * (state / 2 ** 31 - 1);
    }
  }
  return flat;
}

type Sgemm = (n: number, a: Float32Array, b: Float32Array, c: Float32Array) => void;

/** cblas_sgemm of an OpenBLAS, or undefined where there is none. */
function openBlas(threads: number): Sgemm | undefined {
  for (const path of options.openblas ? [options.openblas] : ["libopenblas.so.0", "libopenblas.so"]) {
    for (const [prefix, suffix] of [
      ["", ""],
      ["scipy_", "64_"],
    ] as const) {
      try {
        const library = koffi.load(path);
        const integer = suffix ? "int64" : "int";
        library.func(`${prefix}openblas_set_num_threads${suffix}`, "void", ["int"])(threads);
        const sgemm = library.func(`${prefix}cblas_sgemm${suffix}`, "void", [
          ...["int", "int", "int", integer, integer, integer, "float", "float *", integer, "float *", integer],
          ...["float", "float *", integer],
        ]);
        return (n, a, b, c) => void sgemm(101, 111, 111, n, n, n, 1, a, n, b, n, 0, c, n);
      } catch {
        continue;
      }
    }
  }
  return undefined;
}

function gemmFlopsPerSecond(device: CpuDevice, seconds: number, blas: Sgemm | undefined): number {
  const n = 768;
  const [a, b, c] = [device.floats(n * n), device.floats(n * n), device.floats(n * n)];
  a.fill(1);
  b.fill(1);
  const own: Sgemm = (size) => device.matmul({ m: size, n: size, k: size, a, b, out: c });
  return (2 * n ** 3) / fastest(seconds, () => (blas ?? own)(n, a, b, c));
}

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

async function measure(name: string, size: Size, threads: number, seconds: number): Promise<void> {
  const device = await openCpuDevice(threads);
  const spent = new Map<string, number>();
  const engine = new DeviceEngine("cpu", options.operations ? timed(device, spent) : device, size.model);
  engine.writeParameters(someParameters(size.model));
  const { lanes, tokens } = size;
  const ids = Int32Array.from({ length: lanes * tokens }, (_, i) => (i * 7919) % size.model.vocab);
  const batch = { lanes, tokens, tokens_BT: ids, labels_BT: ids };
  const states = engine.createStates(lanes);
  const gradient = new Float32Array(size.training ? engine.layout.size : 0);
  const optimizer = { learningRate: 1e-4, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };
  let steps = 0;
  const secondsPerStep = fastest(seconds, () => {
    if (size.training) {
      engine.forwardBackward(batch, states, gradient);
      engine.applyAdamW(gradient, { optimizer, learningRate: 1e-4, step: ++steps, totalWeight: lanes * tokens });
    } else {
      engine.score(batch, states);
      steps++;
    }
  });
  const blas = openBlas(threads);
  const gemm = gemmFlopsPerSecond(device, seconds / 3, blas);
  const rate = (lanes * tokens) / secondsPerStep;
  const limit = gemm / matmulFlopsPerToken(size);
  const share = `${((100 * rate) / limit).toFixed(0)} % of ${limit.toFixed(0)}`;
  const speed = `${(gemm / 1e9).toFixed(0)} GFLOP/s ${blas ? "OpenBLAS" : "own"} sgemm`;
  const bytes = (device.scratchBytes() + engine.arenaBytes) / 2 ** 20;
  console.log(
    `${name.padEnd(7)} ${threads} thread(s)  ${rate.toFixed(0).padStart(7)} tokens/s  ${share} (${speed})  ${bytes.toFixed(0)} MiB`,
  );
  for (const [operation, ms] of [...spent].sort((a, b) => b[1] - a[1])) {
    console.log(`    ${operation.padEnd(20)} ${(ms / steps).toFixed(3)} ms`);
  }
  engine.close();
}

for (const name of options.sizes.split(",")) {
  const size = SIZES[name];
  if (!size) throw new Error(`no size ${name}; there are ${Object.keys(SIZES).join(", ")}`);
  for (const threads of options.threads.split(",")) await measure(name, size, Number(threads), Number(options.seconds));
}
