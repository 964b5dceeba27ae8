import { modelWidths, type ModelSpec } from "@segue/core";
import type { BufferKind, Device, ScanShape } from "../devices/device.js";
import { cudaBufferFloats, rounded } from "./buffer-floats.js";
import { ChunkScan } from "./chunk-scan.js";
import { CublasLt, WORKSPACE_BYTES, type Element } from "./cublaslt.js";
import { sliceOf, type CudaFloats, type CudaInts } from "./floats.js";
import { keptStateFloats } from "./kept-states.js";
import { CudaOperations } from "./operations.js";
import { NcclExchange } from "./nccl-exchange.js";
import { Optimizer } from "./optimizer.js";
import { CudaRuntime } from "./runtime.js";
import { CudaSharing } from "./cuda-sharing.js";
import { SerialScan } from "./serial-scan.js";
import { Scratch, type Wishes } from "./scratch.js";

export type CudaDevice = Device<CudaFloats, CudaInts> & { readonly runtime: CudaRuntime };

/**
 * A GPU. With `bf16`, matrix products and activations are bf16; sums, states, time steps and everything that is trained stay float32.
 * @param ordinal which of this machine's GPUs
 * @throws SegueError ENGINE_UNAVAILABLE, with what is missing
 */
export function openCudaDevice(precision: Element, ordinal = 0, env: NodeJS.ProcessEnv = process.env): CudaDevice {
  const wishes = memoryWishes(env.SEGUE_CUDA_RECOMPUTE);
  const runtime = new CudaRuntime(ordinal, env, wishes.mostBytes);
  try {
    const blas = new CublasLt(runtime.allocate(WORKSPACE_BYTES), env);
    return deviceOn(runtime, blas, precision, wishes.economies);
  } catch (failure) {
    runtime.close();
    throw failure;
  }
}

function deviceOn(runtime: CudaRuntime, blas: CublasLt, precision: Element, startEconomies: number): CudaDevice {
  const scratch = new Scratch(runtime);
  const operations = new CudaOperations(runtime, blas, scratch, precision);
  const chunked = new ChunkScan(operations, scratch);
  const serial = new SerialScan(operations, scratch);
  const optimizer = new Optimizer(operations, scratch);
  const sharing = new CudaSharing(runtime, operations, scratch);
  const { gpu, compiler } = runtime;
  const rounds = precision === "bf16";
  let economies = startEconomies;
  const scanOf = (shape: ScanShape): Pick<ChunkScan, "wishes" | "scan" | "scanBackward"> =>
    chunked.takes(shape) ? chunked : serial;
  const wishes = (model: ModelSpec, lanes: number, tokens: number): Wishes => {
    const shape = { ...model, heads: modelWidths(model).heads };
    const ofScan = scanOf(shape).wishes(shape, lanes, tokens, economies === 0);
    const ofRest = operations.wishes(model, lanes, tokens);
    return { ...ofScan, ...ofRest, operation: Math.max(ofScan.operation ?? 0, ofRest.operation) };
  };

  const bufferFloats = cudaBufferFloats(precision);
  const bufferAt = (address: number, length: number, kind: BufferKind): CudaFloats => {
    if (!rounds || kind === "float") return { f32: address, bf16: 0, length };
    if (kind === "activation") return { f32: 0, bf16: address, length };
    return { f32: address, bf16: address + 4 * rounded(length), length };
  };

  return {
    runtime,
    detail: `cuda (${gpu.name}, ${precision}, NVRTC ${compiler.version})`,
    get economies() {
      return economies;
    },
    economise: (count) => {
      economies = count;
    },
    keptStateFloats: (shape, lanes, tokens) => (chunked.takes(shape) ? keptStateFloats(shape, lanes, tokens) : 0),
    reserve: (model, lanes, tokens) => {
      for (const [purpose, bytes] of Object.entries(wishes(model, lanes, tokens))) scratch.take(purpose, bytes);
    },
    reservedBytes: (model, lanes, tokens) => Object.values(wishes(model, lanes, tokens)).reduce((sum, bytes) => sum + bytes, 0),
    unreserve: () => scratch.release(),
    freeBytes: () => runtime.memory.freeBytes(),
    bufferFloats,
    buffer: (memory, offset, length, kind) => bufferAt(memory.f32 + 4 * offset, length, kind),
    floats: (length, kind = "float") => bufferAt(runtime.allocate(4 * bufferFloats(length, kind)), length, kind),
    ints: (length) => ({ address: runtime.allocate(4 * length), length }),
    slice: sliceOf,
    free: (floats) => runtime.recycle(floats.f32 || floats.bf16),
    freeInts: (ints) => runtime.release(ints.address),
    upload: (from, to) => {
      runtime.upload(from, to.f32);
      if (to.bf16) operations.round(to);
    },
    uploadInts: (from, to) => runtime.upload(Int32Array.from(from), to.address),
    download: (from, to) => runtime.download(from.f32, to),
    copyOut: (copies) => runtime.copyOut(copies.map(({ from, to }) => ({ from: from.f32, to }))),
    downloadLater: (from, to) => runtime.downloadLater(from.f32, to),
    replay: (key, memory, work) => {
      const places = memory.map((part) => ("address" in part ? part.address : `${part.f32}/${part.bf16}`));
      runtime.replay([key, ...places].join(" "), work);
    },
    fill: (floats, value) => runtime.fill(floats.f32, bitsOf(value), floats.length),
    copy: (from, to) => {
      runtime.copy(from.f32, to.f32, 4 * from.length);
      if (to.bf16) operations.round(to);
    },

    gatherRows: (args) => operations.gatherRows(args),
    scatterAddRows: (args) => operations.scatterAddRows(args),
    matmul: (args) => operations.matmul(args),
    addNorm: (args) => operations.addNorm(args),
    addNormBackward: (args) => operations.addNormBackward(args),
    conv: (args) => operations.conv(args),
    convBackward: (args) => operations.convBackward(args),
    timeSteps: (args) => operations.timeSteps(args),
    timeStepsBackward: (args) => operations.timeStepsBackward(args),
    scan: (args) => scanOf(args).scan(args),
    scanBackward: (args) => scanOf(args).scanBackward(args),
    gatedNorm: (args) => operations.gatedNorm(args),
    gatedNormBackward: (args) => operations.gatedNormBackward(args),
    headLoss: (args) => operations.headLoss(args),
    add: (addend, sum) => operations.add(addend, sum),
    sharing,
    openLibraryExchange: (length, plan, options) => {
      return new NcclExchange(runtime, sharing, (floats) => operations.round(floats), length, plan, options);
    },
    sumOfSquares: (floats) => {
      const sum = new Float64Array(1);
      runtime.download(operations.squaredNorm(floats), sum);
      return sum[0]!;
    },
    squaresOfBlocks: (floats, into) => operations.squaresOfBlocks(floats, into.f32),
    sumOfBlocks: (squares) => {
      const sum = new Float64Array(1);
      runtime.download(operations.sumOfBlocks(squares.f32, squares.length / 2), sum);
      return sum[0]!;
    },
    adamW: (args) => optimizer.step(args),
    clippedAdamW: (args) => optimizer.clippedStep(args),
    subtract: (from, subtrahend, out) => operations.subtract(from, subtrahend, out),
    divide: (from, divisor, out) => operations.divide(from, divisor, out),
    outerStep: (args) => operations.outerStep(args),
    stateStatistics: (args) => operations.stateStatistics(args),
    laneSums: (args) => operations.laneSums(args),
    mixHeads: (args) => operations.mixHeads(args),
    close: () => {
      runtime.close();
      blas.close();
    },
  };
}

const MEBIBYTE = 2 ** 20;

/** `auto`: as many economies as memory asks for, `layers`: all of them; a number: the most memory that the engine takes, in MiB. */
function memoryWishes(recompute = "auto"): { economies: number; mostBytes: number } {
  const isLimit = /^[1-9][0-9]*$/.test(recompute);
  return {
    economies: recompute === "layers" ? Infinity : 0,
    mostBytes: isLimit ? Number(recompute) * MEBIBYTE : Infinity,
  };
}

function bitsOf(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0]!;
}
