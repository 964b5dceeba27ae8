import { availableParallelism } from "node:os";
import koffi from "koffi";
import type { Columns, Device, LaneParts } from "../device.js";
import { divide, outerStep, subtract } from "../reference/outer.js";
import { nativeLibrary } from "./build.js";
import { CpuSharing } from "./cpu-sharing.js";
import { openLibrary, type CpuLibrary } from "./library.js";

export type CpuDevice = Device<Float32Array, Int32Array> & { scratchBytes(): number };

const VARIANT_TITLES: Readonly<Record<string, string>> = { avx512: "AVX-512", avx2: "AVX2", baseline: "baseline" };

/**
 * The C++ kernels on this machine's processor.
 * @param threads 0: as many as there are cores
 * @throws SegueError ENGINE_UNAVAILABLE, with what is missing
 */
export async function openCpuDevice(threads: number, env: NodeJS.ProcessEnv = process.env): Promise<CpuDevice> {
  const numThreads = threads > 0 ? threads : availableParallelism();
  const library = openLibrary(await nativeLibrary(env), numThreads, env.SEGUE_CPU_VARIANT);
  const title = VARIANT_TITLES[library.variant] ?? library.variant;
  const native = operations(library);
  const sharing = new CpuSharing({ floats: memory.floats, add: native.add });
  return { detail: `cpu (${title}, ${numThreads} ${numThreads === 1 ? "thread" : "threads"})`, ...memory, ...native, sharing };
}

const LINE_BYTES = 64;

/** Plain arrays of this process; floats begin on a cache line. */
const memory: Pick<
  Device<Float32Array, Int32Array>,
  "floats" | "ints" | "slice" | "upload" | "uploadInts" | "download" | "fill" | "copy"
> = {
  floats: (length) => {
    const buffer = new ArrayBuffer(length * 4 + LINE_BYTES);
    const past = Number(koffi.address(buffer) % BigInt(LINE_BYTES));
    return new Float32Array(buffer, (LINE_BYTES - past) % LINE_BYTES, length);
  },
  ints: (length) => new Int32Array(length),
  slice: (of, offset, length) => of.subarray(offset, offset + length),
  upload: (from, to) => to.set(from),
  uploadInts: (from, to) => to.set(from),
  download: (from, to) => to.set(from),
  fill: (floats, value) => void floats.fill(value),
  copy: (from, to) => to.set(from),
};

const columns = ({ data, first, stride }: Columns<Float32Array>): [Float32Array, number] => [data.subarray(first), stride];
const laneParts = (parts: LaneParts<Float32Array> | undefined): [Float32Array | null, number] => [
  parts?.data ?? null,
  parts?.stride ?? 0,
];

/** Each call, spelled as the C++ function takes it. */
function operations({ operations: native, ...library }: CpuLibrary): Omit<CpuDevice, keyof typeof memory | "detail"> {
  return {
    gatherRows: (a) => native.gather_rows(a.rows, a.width, a.table_VD, a.ids_R, a.rows_RD),
    scatterAddRows: (a) => native.scatter_add_rows(a.rows, a.width, a.table_VD, a.ids_R, a.rows_RD),
    matmul: (a) => native.matmul(a.m, a.n, a.k, a.a, flag(a.transposeA), a.b, flag(a.transposeB), a.out, flag(a.accumulate)),
    addNorm: (a) =>
      native.add_norm(a.rows, a.width, a.eps, a.residual_RD, a.delta_RD ?? null, a.weight_D, a.sum_RD, a.out_RD, a.inverseRms_R),
    addNormBackward: (a) =>
      native.add_norm_backward(
        ...[a.rows, a.width, a.sum_RD, a.weight_D, a.inverseRms_R, a.dOut_RD, a.dSum_RD, flag(a.accumulate)],
        ...[a.dWeight_D, a.out_RD],
      ),
    conv: (a) =>
      native.conv(
        ...[a.lanes, a.tokens, a.channels, a.taps, a.resets_R ?? null, ...columns(a.raw), a.weight_CW, a.bias_C],
        ...[...laneParts(a.state), a.savedTaps_BWC ?? null, a.out_RC],
      ),
    convBackward: (a) =>
      native.conv_backward(
        ...[a.lanes, a.tokens, a.channels, a.taps, a.resets_R ?? null, ...columns(a.raw), a.weight_CW, a.bias_C],
        ...[a.savedTaps_BWC, a.dOut_RC, ...columns(a.dRaw), a.dWeight_CW, a.dBias_C, ...laneParts(a.stateGradient)],
      ),
    timeSteps: (a) => native.time_steps(a.rows, a.heads, a.min, a.max, ...columns(a.raw), a.bias_H, a.scale ?? 1, a.dt_RH),
    timeStepsBackward: (a) =>
      native.time_steps_backward(
        ...[a.rows, a.heads, a.min, a.max, ...columns(a.raw), a.bias_H, a.dDt_RH, ...columns(a.dRaw), a.dBias_H],
      ),
    scan: (a) =>
      native.scan(
        ...[a.lanes, a.tokens, a.heads, a.headDim, a.dState, a.groups, a.chunk, a.resets_R ?? null],
        ...[a.xBC_RC, a.dt_RH, a.aLog_H, a.skip_H, a.logRetention ?? 0, a.insertion ?? 1],
        ...[...laneParts(a.state), a.chunkStates_BKHPN, a.y_RI],
      ),
    scanBackward: (a) =>
      native.scan_backward(
        ...[a.lanes, a.tokens, a.heads, a.headDim, a.dState, a.groups, a.chunk, a.resets_R ?? null],
        ...[a.xBC_RC, a.dt_RH, a.aLog_H, a.skip_H, a.chunkStates_BKHPN, a.dY_RI],
        ...[a.dXBC_RC, a.dDt_RH, a.dALog_H, a.dSkip_H, a.dChunkStates_BKHPN, ...laneParts(a.stateGradient)],
      ),
    gatedNorm: (a) =>
      native.gated_norm(
        ...[a.rows, a.width, a.groupWidth, flag(a.normBeforeGate), a.eps, a.y_RI, ...columns(a.gate), a.weight_I],
        ...[a.out_RI, a.inverseRms],
      ),
    gatedNormBackward: (a) =>
      native.gated_norm_backward(
        ...[a.rows, a.width, a.groupWidth, flag(a.normBeforeGate), a.y_RI, ...columns(a.gate), a.weight_I, a.inverseRms],
        ...[a.dOut_RI, a.dY_RI, ...columns(a.dGate), a.dWeight_I, a.out_RI],
      ),
    headLoss: (a) =>
      native.head_loss(
        ...[a.rows, a.width, a.vocab, a.hidden_RD, a.table_VD, a.labels_R, a.losses_R],
        ...[a.gradient?.weights_R ?? null, a.gradient?.dHidden_RD ?? null, a.gradient?.dTable_VD ?? null],
      ),
    add: (addend, sum) => native.add(sum.length, addend, sum),
    sumOfSquares: (floats) => library.sumOfSquares(floats),
    squaresOfBlocks: (floats, into) => native.squares_of_blocks(floats.length, floats, into),
    sumOfBlocks: ({ buffer, byteOffset, length }) =>
      new Float64Array(buffer, byteOffset, length / 2).reduce((sum, block) => sum + block, 0),
    adamW: (a) =>
      native.adamw(
        ...[a.parameters.length, a.parameters, a.gradient, a.firstMoment, a.secondMoment, a.gradientScale, a.learningRate],
        ...[a.beta1, a.beta2, a.epsilon, a.weightDecay, a.step],
      ),
    // Once in many steps, and bound by memory.
    ...{ subtract, divide, outerStep },
    stateStatistics: (a) => native.state_statistics(a.lanes, a.heads, a.size, ...laneParts(a.state), a.out),
    laneSums: (a) =>
      native.lane_sums(a.lanes, a.tokens, ...columns(a.columns), a.groups, a.width, flag(a.squared), ...laneParts(a.out)),
    mixHeads: (a) =>
      native.mix_heads(
        ...[a.lanes, a.heads, a.size, a.factors_BH, ...laneParts(a.from), ...laneParts(a.state), flag(a.accumulate)],
      ),
    scratchBytes: () => library.scratchBytes(),
    close: () => library.close(),
  };
}

function flag(value: boolean | undefined): number {
  return value ? 1 : 0;
}
