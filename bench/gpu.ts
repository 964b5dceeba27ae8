/**
 * Tokens per second of whole training steps on a GPU: forward, backward, clipping, AdamW, in bf16 with one graph per pass.
 *
 *     node --import=tsx --conditions=segue-source bench/gpu.ts [--rows 130M-16x4096,...] [--seconds 3] [--kernels] [--precision bf16|f32]
 *                                                                 [--recompute auto|layers|half|MiB]
 *
 * Each row also gets the floor that its matrix products and its memory traffic set, from ceilings measured first: a large bf16 product
 * and a large copy. `--kernels` adds the milliseconds of a step by kernel, launched one by one. `--prefill` measures instead how the 130M model reads a million tokens in
 * segments, in the memory of one, and then writes. `--recompute half` computes in each row as much again as half of the peer's peak asks
 * for, the rows without a peer are left out. Without a GPU it says so and exits with code 3.
 */
import { parseArgs } from "node:util";
import { modelWidths, parameterLayout, SegueError, type ModelSpec } from "@segue/core";
import { CublasLt, WORKSPACE_BYTES } from "../packages/engine/src/cuda/cublaslt.js";
import { openCudaDevice } from "../packages/engine/src/cuda/cuda-device.js";
import { CudaRuntime } from "../packages/engine/src/cuda/runtime.js";
import type { TrainingResult } from "../packages/engine/src/engine.js";
import { DeviceEngine } from "../packages/engine/src/native/device-engine.js";

const NO_GPU = 3;

const mamba2 = (sizes: Pick<ModelSpec, "layers" | "dModel" | "vocab">): ModelSpec => ({
  ...{
    headDim: 64,
    dState: 128,
    chunk: 256,
    expand: 2,
    dConv: 4,
    groups: 1,
    padVocabMultiple: 1,
    tieEmbeddings: true,
    rmsEps: 1e-5,
  },
  ...sizes,
});

const MODELS = {
  "3.9M": mamba2({ layers: 8, dModel: 256, vocab: 512 }),
  "130M": mamba2({ layers: 24, dModel: 768, vocab: 50288 }),
  "370M": mamba2({ layers: 48, dModel: 1024, vocab: 50288 }),
} as const;

interface Row {
  readonly model: keyof typeof MODELS;
  readonly lanes: number;
  readonly tokens: number;
  /** Of the official PyTorch and Triton code. */
  readonly peerGiB?: number;
}

const ROWS: readonly Row[] = [
  { model: "3.9M", lanes: 16, tokens: 2048, peerGiB: 2.1 },
  { model: "130M", lanes: 8, tokens: 2048, peerGiB: 17.8 },
  { model: "130M", lanes: 16, tokens: 4096, peerGiB: 66.1 },
  { model: "130M", lanes: 64, tokens: 512 },
  { model: "130M", lanes: 32, tokens: 1024 },
  { model: "370M", lanes: 8, tokens: 2048, peerGiB: 29.7 },
  { model: "370M", lanes: 2, tokens: 8192, peerGiB: 29.7 },
  { model: "370M", lanes: 8, tokens: 8192, peerGiB: 103.9 },
];

const nameOf = ({ model, lanes, tokens }: Row): string => `${model}-${lanes}x${tokens}`;

const { values: options } = parseArgs({
  options: {
    rows: { type: "string", default: ROWS.map(nameOf).join(",") },
    seconds: { type: "string", default: "3" },
    kernels: { type: "boolean", default: false },
    precision: { type: "string", default: "bf16" },
    recompute: { type: "string", default: "auto" },
    prefill: { type: "boolean", default: false },
  },
});

/** Plausible weights; any will do for timing. */
function someParameters(model: ModelSpec): Float32Array {
  const { entries, size } = parameterLayout(model);
  const flat = new Float32Array(size);
  let state = 1;
  for (const { name, shape, offset, size: length } of entries) {
    const scale = name.includes("embeddings") ? 0.035 : shape.length > 1 ? 1 / Math.sqrt(shape.at(-1)!) : 0;
    const mean = shape.length > 1 ? 0 : name.endsWith("dt_bias") ? -4 : 1;
    for (let i = offset; i < offset + length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      flat[i] = mean + scale * (state / 2 ** 31 - 1);
    }
  }
  return flat;
}

interface Ceilings {
  readonly flopsPerSecond: number;
  readonly bytesPerSecond: number;
}

/** A bf16 product of 8192 cubed on random data, and a copy of 4 GiB, read and written. */
function measureCeilings(): Ceilings {
  const runtime = new CudaRuntime(0, process.env);
  const n = 8192;
  const bytes = 4 * 2 ** 30;
  const blas = new CublasLt(runtime.allocate(WORKSPACE_BYTES), process.env);
  const [a, b, out] = [runtime.allocate(2 * n * n), runtime.allocate(2 * n * n), runtime.allocate(2 * n * n)];
  let state = 1;
  // bf16 numbers of both signs from 0.25 to 1.
  const noise = Uint16Array.from({ length: n * n }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (0x3e80 + (state >>> 24)) | ((state >>> 8) & 0x8000);
  });
  for (const matrix of [a, b]) runtime.upload(noise, matrix);
  const [from, to] = [runtime.allocate(bytes), runtime.allocate(bytes)];
  const best = (work: () => void): number => {
    work();
    return Math.min(...Array.from({ length: 10 }, () => runtime.time(work))) / 1000;
  };
  const multiply = (): void =>
    blas.multiply(
      { m: n, n, k: n, a, b, out, transposeA: false, transposeB: true, accumulate: false, from: "bf16", to: "bf16" },
      runtime.stream,
    );
  const ceilings = {
    flopsPerSecond: (2 * n ** 3) / best(multiply),
    bytesPerSecond: (2 * bytes) / best(() => runtime.copy(from, to, bytes)),
  };
  const { name } = runtime.gpu;
  const driver = runtime.driver.integer("cuDriverGetVersion");
  console.log(
    `${name}, driver for CUDA ${driver / 1000}, NVRTC ${runtime.compiler.version}, cuBLASLt ${blas.version}, Node ${process.version}`,
  );
  console.log(
    `ceilings: ${(ceilings.flopsPerSecond / 1e12).toFixed(0)} TFLOP/s bf16, ${(ceilings.bytesPerSecond / 1e12).toFixed(2)} TB/s copy`,
  );
  runtime.close();
  return ceilings;
}

/** Of projections and head, forward and backward; multiply-adds count as two. */
function projectionFlopsPerToken(model: ModelSpec): number {
  const { dInner, dInProj } = modelWidths(model);
  return 3 * (model.layers * 2 * model.dModel * (dInProj + dInner) + 2 * model.dModel * model.vocab);
}

/** Of the scan in chunks of 64, forward and backward. */
function scanFlopsPerToken(model: ModelSpec): number {
  const { heads } = modelWidths(model);
  const head = 2 * model.headDim * (3 * 64 + 8 * model.dState);
  return model.layers * heads * head;
}

/** Activations that each layer must read and write at least once per pass, in bf16 beside the float32 residual stream. */
function bytesPerToken(model: ModelSpec): number {
  const { dInner, convDim, dInProj } = modelWidths(model);
  const forward = 4 * 3 * model.dModel + 2 * (2 * model.dModel + 2 * dInProj + 2 * convDim + 4 * dInner);
  return model.layers * 3 * forward;
}

function measure(row: Row, ceilings: Ceilings, seconds: number): void {
  const model = MODELS[row.model];
  const { lanes, tokens } = row;
  const halfMiB = row.peerGiB && Math.floor((1024 / 2) * row.peerGiB);
  if (options.recompute === "half" && !halfMiB) return;
  const env = { ...process.env, SEGUE_CUDA_RECOMPUTE: options.recompute === "half" ? String(halfMiB) : options.recompute };
  const device = openCudaDevice(options.precision === "f32" ? "f32" : "bf16", 0, env);
  const engine = new DeviceEngine("cuda", device, model);
  engine.writeParameters(someParameters(model));
  const ids = Int32Array.from({ length: lanes * tokens }, (_, i) => ((i * 2654435761) >>> 8) % model.vocab);
  const labels = Int32Array.from(ids, (_, i) => ids[(i + 1) % ids.length]!);
  const states = engine.createStates(lanes);
  const optimizer = { learningRate: 1e-4, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };
  let steps = 0;
  const step = (): (() => TrainingResult) =>
    engine.trainStep([{ batch: { lanes, tokens, tokens_BT: ids, labels_BT: labels }, states }], {
      ...{ optimizer, learningRate: 1e-4, step: ++steps, totalWeight: lanes * tokens },
    });
  const first = step()();
  // The third step is the first that only replays.
  for (let i = 0; i < 2; i++) step()();
  const measured = steps;
  const start = performance.now();
  let waiting = step();
  while (performance.now() - start < 1000 * seconds) {
    const next = step();
    waiting();
    waiting = next;
  }
  const last = waiting();
  const secondsPerStep = (performance.now() - start) / 1000 / (steps - measured);
  const rate = (lanes * tokens) / secondsPerStep;
  const floor =
    lanes *
    tokens *
    ((projectionFlopsPerToken(model) + scanFlopsPerToken(model)) / ceilings.flopsPerSecond +
      bytesPerToken(model) / ceilings.bytesPerSecond);
  const losses = [first, last].map(({ lossSums }) => (lossSums[0]! / lanes / tokens).toFixed(3)).join(" -> ");
  console.log(
    [
      nameOf(row).padEnd(14),
      `${rate.toFixed(0).padStart(9)} tokens/s`,
      `${(1000 * secondsPerStep).toFixed(2).padStart(8)} ms`,
      `${(device.runtime.memory.peakBytes / 2 ** 30).toFixed(2).padStart(6)} GiB`,
      `economies ${Math.min(device.economies!, 2 * model.layers)} of ${2 * model.layers}`,
      `floor ${(1000 * floor).toFixed(1)} ms (${((100 * floor) / secondsPerStep).toFixed(0)} %)`,
      `loss ${losses}`,
    ].join("  "),
  );
  if (options.kernels) {
    const spent = [...device.runtime.profile(() => step()())].sort(([, a], [, b]) => b.ms - a.ms);
    const total = spent.reduce((sum, [, { ms }]) => sum + ms, 0);
    console.log(`    one by one: ${total.toFixed(2)} ms`);
    for (const [name, { ms, calls }] of spent.filter((entry) => entry[1].ms > total / 500)) {
      console.log(
        `    ${name.padEnd(34)} ${ms.toFixed(3).padStart(9)} ms ${String(calls).padStart(5)} x ${((1000 * ms) / calls).toFixed(1)} us`,
      );
    }
  }
  engine.close();
}

const READ = { tokens: 2 ** 20, segment: 8192, lanes: [1, 8], written: 200 } as const;

/** Reading in segments and writing token by token, each lane its own text. */
function measureReading(lanes: number): void {
  const model = MODELS["130M"];
  const device = openCudaDevice("bf16");
  const engine = new DeviceEngine("cuda", device, model);
  engine.writeParameters(someParameters(model));
  const states = engine.createStates(lanes);
  const batch = (tokens: number): { lanes: number; tokens: number; tokens_BT: Int32Array } => ({
    ...{ lanes, tokens },
    tokens_BT: Int32Array.from({ length: lanes * tokens }, (_, i) => ((i * 2654435761) >>> 8) % model.vocab),
  });
  const read = (): void => void engine.prefill(batch(READ.segment), states);
  // The third time is the first that only replays.
  for (let i = 0; i < 3; i++) read();
  const { peakBytes } = device.runtime.memory;
  const start = performance.now();
  for (let done = 0; done < READ.tokens; done += lanes * READ.segment) read();
  const readSeconds = (performance.now() - start) / 1000;
  for (let i = 0; i < 3; i++) engine.prefill(batch(1), states);
  const wrote = performance.now();
  for (let i = 0; i < READ.written; i++) engine.prefill(batch(1), states);
  const msPerToken = (performance.now() - wrote) / READ.written;
  const { peakBytes: after } = device.runtime.memory;
  console.log(
    [
      `130M, ${lanes} ${lanes === 1 ? "lane" : "lanes"}: read ${READ.tokens} tokens at ${(READ.tokens / readSeconds).toFixed(0)} tokens/s`,
      `${(peakBytes / 2 ** 30).toFixed(2)} GiB after the first segments, ${(after / 2 ** 30).toFixed(2)} GiB at the end`,
      `one more token for every lane: ${msPerToken.toFixed(2)} ms`,
    ].join("; "),
  );
  engine.close();
}

try {
  const ceilings = measureCeilings();
  if (options.prefill) for (const lanes of READ.lanes) measureReading(lanes);
  for (const name of options.prefill ? [] : options.rows.split(",")) {
    const row = ROWS.find((candidate) => nameOf(candidate) === name);
    if (!row) throw new Error(`no row ${name}; there are ${ROWS.map(nameOf).join(", ")}`);
    try {
      measure(row, ceilings, Number(options.seconds));
    } catch (e) {
      if (!(e instanceof SegueError && e.code === "DEVICE_OUT_OF_MEMORY")) throw e;
      console.log(`${name.padEnd(14)}  ${e.message}`);
    }
  }
} catch (e) {
  if (!(e instanceof SegueError && e.code === "ENGINE_UNAVAILABLE")) throw e;
  console.error(`nothing measured: ${e.message}`);
  process.exitCode = NO_GPU;
}
