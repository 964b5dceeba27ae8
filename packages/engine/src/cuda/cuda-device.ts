import type { BufferKind, Device } from "../devices/device.js";
import { cudaBufferFloats, rounded } from "./buffer-floats.js";
import { ChunkScan } from "./chunk-scan.js";
import { CublasLt, WORKSPACE_BYTES, type Element } from "./cublaslt.js";
import { sliceOf, type CudaFloats, type CudaInts } from "./floats.js";
import { CudaOperations } from "./operations.js";
import { Optimizer } from "./optimizer.js";
import { CudaRuntime } from "./runtime.js";
import { SerialScan } from "./serial-scan.js";
import { Scratch } from "./scratch.js";

export type CudaDevice = Device<CudaFloats, CudaInts> & { readonly runtime: CudaRuntime };

/**
 * A GPU. With `bf16`, matrix products and activations are bf16; sums, states, time steps and everything that is trained stay float32.
 * @param ordinal which of this machine's GPUs
 * @throws SegueError ENGINE_UNAVAILABLE, with what is missing
 */
export function openCudaDevice(precision: Element, ordinal = 0, env: NodeJS.ProcessEnv = process.env): CudaDevice {
  const runtime = new CudaRuntime(ordinal, env);
  try {
    const blas = new CublasLt(runtime.allocate(WORKSPACE_BYTES), env);
    return deviceOn(runtime, blas, precision, env.SEGUE_CUDA_RECOMPUTE === "layers");
  } catch (failure) {
    runtime.close();
    throw failure;
  }
}

function deviceOn(runtime: CudaRuntime, blas: CublasLt, precision: Element, isSmall: boolean): CudaDevice {
  const scratch = new Scratch(runtime);
  const operations = new CudaOperations(runtime, blas, scratch, precision);
  const chunked = new ChunkScan(operations, scratch);
  const serial = new SerialScan(operations, scratch);
  const optimizer = new Optimizer(operations, scratch);
  const { gpu, compiler } = runtime;
  const rounds = precision === "bf16";
  let recomputesLayers = isSmall;

  const bufferFloats = cudaBufferFloats(precision);
  const bufferAt = (address: number, length: number, kind: BufferKind): CudaFloats => {
    if (!rounds || kind === "float") return { f32: address, bf16: 0, length };
    if (kind === "activation") return { f32: 0, bf16: address, length };
    return { f32: address, bf16: address + 4 * rounded(length), length };
  };

  return {
    runtime,
    detail: `cuda (${gpu.name}, ${precision}, NVRTC ${compiler.version})`,
    recomputes: true,
    get recomputesLayers() {
      return recomputesLayers;
    },
    economise: () => {
      const isNew = !recomputesLayers;
      recomputesLayers = true;
      return isNew;
    },
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
    downloadLater: (from, to) => runtime.downloadLater(from.f32, to),
    replay: (key, memory, work) => {
      const places = memory.map((part) => ("address" in part ? part.address : `${part.f32}/${part.bf16}`));
      runtime.replay([key, ...places].join(" "), work);
    },
    fill: (floats, value) => runtime.fill(floats.f32, bitsOf(value), floats.length),
    copy: (from, to) => runtime.copy(from.f32, to.f32, 4 * from.length),

    gatherRows: (args) => operations.gatherRows(args),
    scatterAddRows: (args) => operations.scatterAddRows(args),
    matmul: (args) => operations.matmul(args),
    addNorm: (args) => operations.addNorm(args),
    addNormBackward: (args) => operations.addNormBackward(args),
    conv: (args) => operations.conv(args),
    convBackward: (args) => operations.convBackward(args),
    timeSteps: (args) => operations.timeSteps(args),
    timeStepsBackward: (args) => operations.timeStepsBackward(args),
    scan: (args) => (chunked.takes(args) ? chunked : serial).scan(args),
    scanBackward: (args) => (chunked.takes(args) ? chunked : serial).scanBackward(args),
    gatedNorm: (args) => operations.gatedNorm(args),
    gatedNormBackward: (args) => operations.gatedNormBackward(args),
    headLoss: (args) => operations.headLoss(args),
    add: (addend, sum) => operations.add(addend, sum),
    sumOfSquares: (floats) => {
      const sum = new Float64Array(1);
      runtime.download(operations.squaredNorm(floats), sum);
      return sum[0]!;
    },
    adamW: (args) => optimizer.step(args),
    clippedAdamW: (args) => optimizer.clippedStep(args),
    stateStatistics: (args) => operations.stateStatistics(args),
    laneSums: (args) => operations.laneSums(args),
    mixHeads: (args) => operations.mixHeads(args),
    close: () => {
      runtime.close();
      blas.close();
    },
  };
}

function bitsOf(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0]!;
}
