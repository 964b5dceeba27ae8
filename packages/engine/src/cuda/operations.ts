import { modelWidths, SegueError, SLICE_BLOCK_FLOATS, type ModelSpec } from "@segue/core";
import type {
  AddNormArgs,
  AddNormBackwardArgs,
  Columns,
  ConvArgs,
  ConvBackwardArgs,
  GatedNormArgs,
  GatedNormBackwardArgs,
  HeadLossArgs,
  LaneSumsArgs,
  MatmulArgs,
  MixHeadsArgs,
  OuterStepArgs,
  RowsArgs,
  ScaledTimeStepsArgs,
  StateStatisticsArgs,
  TimeStepsBackwardArgs,
} from "../devices/device.js";
import type { CublasLt, Element } from "./cublaslt.js";
import type { Defines } from "./compiler.js";
import type { Address } from "./driver.js";
import type { CudaFloats, CudaInts } from "./floats.js";
import type { KernelName } from "./kernels.js";
import type { CudaRuntime, Launch } from "./runtime.js";
import type { Scratch } from "./scratch.js";

type F = CudaFloats;
type I = CudaInts;

/**
 * Warps that share the rows of a backward pass: what an H100 or H200 has room for at one time, but the same on every GPU, as sums depend
 * on it.
 */
const NORM_WARPS = 132 * 20;
const GATED_NORM_WARPS = 132 * 24;
const TIME_STEP_BLOCKS = 1056;
const SUM_THREADS = 256;
/** Vectors of a row per thread, at most: `kPieces` in `cuda/`. */
const PIECES = 2;
/** Tokens per thread of the convolution: `kStrip` in `cuda/conv.cuh`. */
const STRIP = 64;
/** Rows per tile of the sort by id: `kTile` in `cuda/scatter.cu`. */
const TILE = 256;
const WARP = 32;
const MAX_THREADS = 1024;
/** Logits that exist at one time. */
const LOGITS_AT_ONCE = 2 ** 28;
const LOGIT_ROWS_MULTIPLE = 128;
const VECTOR_THREADS = 256;

const ceil = (a: number, b: number): number => Math.ceil(a / b);

/** Everything of a {@link Device} but its memory and the scan. */
export class CudaOperations {
  readonly runtime: CudaRuntime;
  readonly precision: Element;
  readonly #blas: CublasLt;
  readonly #scratch: Scratch;
  readonly #defines: Defines;

  constructor(runtime: CudaRuntime, blas: CublasLt, scratch: Scratch, precision: Element) {
    this.runtime = runtime;
    this.precision = precision;
    this.#blas = blas;
    this.#scratch = scratch;
    this.#defines = precision === "bf16" ? { SEGUE_BF16: 1 } : {};
  }

  /** Where activations are kept. */
  act(floats: F): Address {
    return floats[this.precision];
  }

  columns({ data, first }: Columns<F>): Address {
    return this.act(data) + first * (this.precision === "bf16" ? 2 : 4);
  }

  launch(name: KernelName, launch: Launch, ...args: number[]): void {
    this.runtime.launch(name, { ...launch, defines: { ...this.#defines, ...launch.defines } }, args);
  }

  /** Of a training step; less than a mebibyte is missing. */
  wishes(model: ModelSpec, lanes: number, tokens: number): Record<"operation" | "partial", number> {
    const { vocab } = model;
    const rows = lanes * tokens;
    const { convDim, dInner, heads } = modelWidths(model);
    const gatedWidth = dInner / model.groups;
    const sums = [
      lanes * ceil(tokens, STRIP) * convDim * (model.dConv + 1),
      rowBlocks(rows, NORM_WARPS, rowThreads(model.dModel, 4)) * model.dModel,
      gatedNormBlocks(rows, model.groups, rowThreads(gatedWidth, 4)) * dInner,
      TIME_STEP_BLOCKS * heads,
    ];
    const operation = Math.max(this.bytesOf(logitRows(rows, vocab) * vocab), sortBytes(rows, vocab));
    return { operation, partial: 4 * Math.max(...sums) };
  }

  gatherRows({ rows, width, table_VD, ids_R, rows_RD }: RowsArgs<F, I>): void {
    const whole = rows_RD.f32 !== 0;
    this.launch(
      whole ? "gather_rows_float" : "gather_rows_act",
      { grid: [rows], block: [Math.min(256, threadsOf(width))] },
      ...[width, whole ? table_VD.f32 : table_VD.bf16, ids_R.address, whole ? rows_RD.f32 : rows_RD.bf16],
    );
  }

  scatterAddRows({ rows, width, table_VD, ids_R, rows_RD }: RowsArgs<F, I>): void {
    const vocab = table_VD.length / width;
    const tiles = ceil(rows, TILE);
    const [counts, totals, starts] = [tiles * vocab, vocab, vocab + 1];
    const scratch = this.#scratch.take("operation", sortBytes(rows, vocab));
    const [totalsAt, startsAt, ranksAt] = [
      scratch + 4 * counts,
      scratch + 4 * (counts + totals),
      scratch + 4 * (counts + totals + starts),
    ];
    const orderAt = ranksAt + 4 * rows;
    const ids = ids_R.address;
    this.runtime.fill(scratch, 0, counts);
    this.launch("rank_ids", { grid: [tiles], block: [TILE] }, rows, vocab, ids, ranksAt, scratch);
    this.launch("offset_ids", { grid: [ceil(vocab, 256)], block: [256] }, tiles, vocab, scratch, totalsAt);
    this.launch("start_ids", { grid: [1], block: [MAX_THREADS] }, vocab, totalsAt, startsAt);
    this.launch("place_rows", { grid: [tiles], block: [TILE] }, rows, vocab, ids, ranksAt, scratch, startsAt, orderAt);
    const threads = Math.min(256, threadsOf(width));
    const grid = [vocab, ceil(width, threads)] as const;
    this.launch("add_sorted_rows", { grid, block: [threads] }, width, startsAt, orderAt, rows_RD.f32, table_VD.f32);
  }

  matmul({ m, n, k, a, b, out, transposeA, transposeB, accumulate }: MatmulArgs<F>): void {
    const from = a[this.precision] !== 0 && b[this.precision] !== 0 ? this.precision : "f32";
    const to = out.f32 !== 0 ? "f32" : "bf16";
    this.runtime.measured(`matmul ${m}x${n}x${k}${to === "f32" ? " f32" : ""}`, () => {
      this.#blas.multiply(
        {
          ...{ m, n, k, a: a[from], b: b[from], out: out[to], from, to },
          ...{ transposeA: transposeA ?? false, transposeB: transposeB ?? false, accumulate: accumulate ?? false },
        },
        this.runtime.stream,
      );
    });
  }

  addNorm({ rows, width, eps, residual_RD, delta_RD, weight_D, sum_RD, out_RD, inverseRms_R }: AddNormArgs<F>): void {
    const vector = vectorOf(width, [residual_RD, ...(delta_RD ? [delta_RD] : []), weight_D, sum_RD, out_RD]);
    this.launch(
      "add_norm",
      { grid: [rows], block: [rowThreads(width, vector)] },
      ...[width, vector, eps, residual_RD.f32, delta_RD ? this.act(delta_RD) : 0, weight_D.f32],
      ...[sum_RD.f32, this.act(out_RD), inverseRms_R.f32],
    );
  }

  addNormBackward(args: AddNormBackwardArgs<F>): void {
    const { rows, width, sum_RD, weight_D, inverseRms_R, dOut_RD, dSum_RD, accumulate, dWeight_D, out_RD } = args;
    const vector = vectorOf(width, [sum_RD, weight_D, dOut_RD, dSum_RD, out_RD]);
    const blocks = rowBlocks(rows, NORM_WARPS, rowThreads(width, vector));
    const partial = this.#scratch.take("partial", 4 * blocks * width);
    this.launch(
      "add_norm_backward",
      { grid: [blocks], block: [rowThreads(width, vector)] },
      ...[rows, width, vector, sum_RD.f32, weight_D.f32, inverseRms_R.f32, this.act(dOut_RD)],
      ...[dSum_RD.f32, dSum_RD.bf16, accumulate ? 1 : 0, partial, this.act(out_RD)],
    );
    this.columnSums(blocks, width, width, partial, dWeight_D.f32);
  }

  columnSums(rows: number, columns: number, stride: number, partial: Address, out: Address): void {
    this.launch("column_sums", { grid: [ceil(columns, 32)], block: [32, 32] }, rows, columns, stride, partial, out);
  }

  conv(args: ConvArgs<F, I>): void {
    const { lanes, tokens, channels, taps, raw, weight_CW, bias_C, state, savedTaps_BWC, out_RC, keepState } = args;
    const inputs = [args.resets_R?.address ?? 0, this.columns(raw), raw.stride];
    const vector = channelsAtOnce(channels, [out_RC], [raw]);
    this.launch(
      "conv",
      this.#strips(lanes, tokens, channels, vector),
      ...[tokens, channels, taps, vector, ...inputs, weight_CW.f32, bias_C.f32, state.data.f32, state.stride, this.act(out_RC)],
    );
    if (keepState) return;
    this.launch(
      "conv_state",
      { grid: [ceil(channels, 128), lanes], block: [128] },
      ...[tokens, channels, taps, ...inputs, state.data.f32, state.stride, savedTaps_BWC?.f32 ?? 0, state.data.f32, state.stride],
    );
  }

  convBackward(args: ConvBackwardArgs<F, I>): void {
    const { lanes, tokens, channels, taps, raw, weight_CW, bias_C, savedTaps_BWC, dOut_RC, dRaw, dWeight_CW, dBias_C } = args;
    const inputs = [args.resets_R?.address ?? 0, this.columns(raw), raw.stride, weight_CW.f32, bias_C.f32, savedTaps_BWC.f32];
    const savedStride = (taps - 1) * channels;
    const outputs = [this.act(dOut_RC), this.columns(dRaw), dRaw.stride];
    const vector = channelsAtOnce(channels, [dOut_RC], [raw, dRaw]);
    const launch = this.#strips(lanes, tokens, channels, vector);
    const count = lanes * ceil(tokens, STRIP);
    const sums = channels * (taps + 1);
    const partial = this.#scratch.take("partial", 4 * count * sums);
    this.launch("conv_backward", launch, tokens, channels, taps, vector, ...inputs, savedStride, ...outputs, partial);
    this.columnSums(count, channels * taps, sums, partial, dWeight_CW.f32);
    this.columnSums(count, channels, sums, partial + 4 * channels * taps, dBias_C.f32);
    const gradient = args.stateGradient;
    if (!gradient) return;
    this.launch(
      "conv_state_backward",
      { grid: [ceil(channels, 128), lanes], block: [128] },
      ...[tokens, channels, taps, ...inputs, savedStride, ...outputs, gradient.data.f32, gradient.stride],
    );
  }

  timeSteps({ rows, heads, min, max, raw, bias_H, scale = 1, dt_RH }: ScaledTimeStepsArgs<F>): void {
    this.launch(
      "time_steps",
      { grid: [ceil(rows * heads, VECTOR_THREADS)], block: [VECTOR_THREADS] },
      ...[rows, heads, min, max, this.columns(raw), raw.stride, bias_H.f32, scale, dt_RH.f32],
    );
  }

  timeStepsBackward({ rows, heads, min, max, raw, bias_H, dDt_RH, dRaw, dBias_H }: TimeStepsBackwardArgs<F>): void {
    const blocks = Math.min(ceil(rows, 8), TIME_STEP_BLOCKS);
    const partial = this.#scratch.take("partial", 4 * blocks * heads);
    this.launch(
      "time_steps_backward",
      { grid: [ceil(heads, 32), blocks], block: [32, 8] },
      ...[rows, heads, min, max, this.columns(raw), raw.stride, bias_H.f32, dDt_RH.f32, this.columns(dRaw), dRaw.stride, partial],
    );
    this.columnSums(blocks, heads, heads, partial, dBias_H.f32);
  }

  gatedNorm(args: GatedNormArgs<F>): void {
    const { rows, width, groupWidth, normBeforeGate, eps, y_RI, gate, weight_I, out_RI, inverseRms } = args;
    const vector = vectorOf(groupWidth, [y_RI, weight_I, out_RI], [gate]);
    this.launch(
      "gated_norm",
      { grid: [rows, width / groupWidth], block: [rowThreads(groupWidth, vector)] },
      ...[width, groupWidth, normBeforeGate ? 1 : 0, vector, eps],
      ...[this.act(y_RI), this.columns(gate), gate.stride, weight_I.f32, this.act(out_RI), inverseRms.f32],
    );
  }

  gatedNormBackward(args: GatedNormBackwardArgs<F>): void {
    const { rows, width, groupWidth, normBeforeGate, y_RI, gate, weight_I, inverseRms, dOut_RI, dY_RI, dGate, dWeight_I } = args;
    const vector = vectorOf(groupWidth, [y_RI, weight_I, dOut_RI, dY_RI, args.out_RI], [gate, dGate]);
    const [groups, threads] = [width / groupWidth, rowThreads(groupWidth, vector)];
    const blocks = gatedNormBlocks(rows, groups, threads);
    const partial = this.#scratch.take("partial", 4 * blocks * width);
    this.launch(
      "gated_norm_backward",
      { grid: [blocks, groups], block: [threads] },
      ...[rows, width, groupWidth, normBeforeGate ? 1 : 0, vector],
      ...[this.act(y_RI), this.columns(gate), gate.stride, weight_I.f32, inverseRms.f32, this.act(dOut_RI), this.act(dY_RI)],
      ...[this.columns(dGate), dGate.stride, partial, this.act(args.out_RI)],
    );
    this.columnSums(blocks, width, width, partial, dWeight_I.f32);
  }

  headLoss({ rows, width, vocab, hidden_RD, table_VD, labels_R, losses_R, gradient }: HeadLossArgs<F, I>): void {
    const slice = logitRows(rows, vocab);
    const logits = this.activation(this.#scratch.take("operation", this.bytesOf(slice * vocab)), slice * vocab);
    for (let first = 0; first < rows; first += slice) {
      const live = Math.min(slice, rows - first);
      const part = (of: F): F => partOf(of, first * width);
      this.matmul({ m: live, n: vocab, k: width, a: part(hidden_RD), b: table_VD, transposeB: true, out: logits });
      this.launch(
        "softmax_rows",
        { grid: [live], block: [Math.min(MAX_THREADS, threadsOf(ceil(vocab, 4)))] },
        ...[vocab, vectorOf(vocab, [logits]), this.act(logits), labels_R.address + 4 * first],
        ...[gradient ? gradient.weights_R.f32 + 4 * first : 0, losses_R.f32 + 4 * first],
      );
      if (!gradient) continue;
      this.matmul({ m: live, n: width, k: vocab, a: logits, b: table_VD, out: part(gradient.dHidden_RD) });
      this.matmul({
        ...{ m: vocab, n: width, k: live, a: logits, transposeA: true, b: part(hidden_RD), out: gradient.dTable_VD },
        accumulate: first > 0,
      });
    }
  }

  /** Leaves the sum of squares as a double on the GPU. */
  squaredNorm(floats: F): Address {
    const blocks = ceil(floats.length, SLICE_BLOCK_FLOATS);
    const scratch = this.#scratch.take("squares", 8 * blocks);
    this.squaresOfBlocks(floats, scratch);
    return this.sumOfBlocks(scratch, blocks);
  }

  /** `into`: a double for each block. */
  squaresOfBlocks({ f32, length }: F, into: Address): void {
    const launch = { grid: [ceil(length, SLICE_BLOCK_FLOATS)], block: [SUM_THREADS] } as const;
    this.launch("squares_of_blocks", launch, length, SLICE_BLOCK_FLOATS, f32, into);
  }

  /** @returns where the sum of these doubles comes */
  sumOfBlocks(squares: Address, blocks: number): Address {
    const out = this.#scratch.take("norm", 8);
    this.launch("sum_of_partials", { grid: [1], block: [SUM_THREADS] }, blocks, squares, out);
    return out;
  }

  add(addend: F, sum: F): void {
    const grid = [ceil(sum.length, VECTOR_THREADS)] as const;
    this.launch("add_vectors", { grid, block: [VECTOR_THREADS] }, sum.length, addend.f32, sum.f32);
  }

  subtract(from: F, subtrahend: F, out: F): void {
    const grid = [ceil(out.length, VECTOR_THREADS)] as const;
    this.launch("subtract_vectors", { grid, block: [VECTOR_THREADS] }, out.length, from.f32, subtrahend.f32, out.f32);
  }

  divide(from: F, divisor: number, out: F): void {
    const grid = [ceil(out.length, VECTOR_THREADS)] as const;
    this.launch("divide_vector", { grid, block: [VECTOR_THREADS] }, out.length, divisor, from.f32, out.f32);
  }

  outerStep({ changes, replicas, learningRate, momentum, start, velocity, parameters }: OuterStepArgs<F>): void {
    this.launch(
      "outer_step",
      { grid: [ceil(parameters.length, VECTOR_THREADS)], block: [VECTOR_THREADS] },
      ...[parameters.length, replicas, learningRate, momentum, changes.f32, start.f32, velocity.f32],
      ...[parameters.f32, parameters.bf16],
    );
  }

  /** Brings the rounded copy up to date. */
  round(floats: F): void {
    const grid = [ceil(floats.length, VECTOR_THREADS)] as const;
    this.launch("round_to_bf16", { grid, block: [VECTOR_THREADS] }, floats.length, floats.f32, floats.bf16);
  }

  stateStatistics({ lanes, heads, size, state, out }: StateStatisticsArgs<F>): void {
    const launch = { grid: [lanes * heads], block: [256] } as const;
    this.launch("state_statistics", launch, heads, size, state.data.f32, state.stride, out.f32);
  }

  laneSums({ lanes, tokens, columns, groups, width, squared, out }: LaneSumsArgs<F>): void {
    const whole = columns.data.f32 !== 0;
    this.launch(
      whole ? "lane_sums_float" : "lane_sums_act",
      { grid: [groups, lanes], block: [256] },
      ...[tokens, width, squared ? 1 : 0],
      ...[whole ? columns.data.f32 + 4 * columns.first : this.columns(columns), columns.stride, out.data.f32, out.stride],
    );
  }

  mixHeads({ lanes, heads, size, factors_BH, from, state, accumulate }: MixHeadsArgs<F>): void {
    this.launch(
      "mix_heads",
      { grid: [ceil(size, VECTOR_THREADS), heads, lanes], block: [VECTOR_THREADS] },
      ...[size, factors_BH.f32, from.data.f32, from.stride, state.data.f32, state.stride, accumulate ? 1 : 0],
    );
  }

  bytesOf(activations: number): number {
    return activations * (this.precision === "bf16" ? 2 : 4);
  }

  activation(address: Address, length: number): F {
    return this.precision === "bf16" ? { f32: 0, bf16: address, length } : { f32: address, bf16: 0, length };
  }

  #strips(lanes: number, tokens: number, channels: number, vector: number): Launch {
    return { grid: [ceil(channels, 128 * vector), ceil(tokens, STRIP), lanes], block: [128] };
  }
}

/** Of one slice. */
function logitRows(rows: number, vocab: number): number {
  return Math.min(
    rows,
    Math.max(LOGIT_ROWS_MULTIPLE, Math.floor(LOGITS_AT_ONCE / vocab / LOGIT_ROWS_MULTIPLE) * LOGIT_ROWS_MULTIPLE),
  );
}

/** Counts, totals and starts of every id, ranks and order of the rows. */
function sortBytes(rows: number, vocab: number): number {
  return 4 * (ceil(rows, TILE) * vocab + 2 * vocab + 1 + 2 * rows);
}

function partOf({ f32, bf16, length }: F, offset: number): F {
  return { f32: f32 && f32 + 4 * offset, bf16: bf16 && bf16 + 2 * offset, length: length - offset };
}

/** How many elements of rows of this width can be read at a time, 4 or 1: all of these vectors begin, and all columns stay, aligned. */
function vectorOf(width: number, vectors: readonly F[], columns: readonly Columns<F>[] = []): 1 | 4 {
  const aligned = ({ f32, bf16 }: F): boolean => f32 % 16 === 0 && bf16 % 8 === 0;
  const fits = ({ data, first, stride }: Columns<F>): boolean => aligned(data) && first % 4 === 0 && stride % 4 === 0;
  return width % 4 === 0 && vectors.every(aligned) && columns.every(fits) ? 4 : 1;
}

/** Whole warps. */
const threadsOf = (elements: number): number => ceil(elements, WARP) * WARP;

/** Channels of one thread of the convolution: more would leave too few threads. */
function channelsAtOnce(channels: number, vectors: readonly F[], columns: readonly Columns<F>[]): 1 | 2 {
  return vectorOf(channels, vectors, columns) === 4 ? 2 : 1;
}

function rowBlocks(rows: number, warps: number, threads: number): number {
  return Math.min(rows, ceil(warps, threads / WARP));
}

/** Of each group of columns; all groups together are as many warps as a whole row would be. */
function gatedNormBlocks(rows: number, groups: number, threads: number): number {
  return rowBlocks(rows, GATED_NORM_WARPS / groups, threads);
}

/** Threads of a block that holds a row of `width` in registers. @throws SegueError ENGINE_INPUT_INVALID for rows that do not fit */
function rowThreads(width: number, vector: number): number {
  const threads = threadsOf(ceil(width, PIECES * vector));
  if (threads <= MAX_THREADS) return threads;
  throw new SegueError(
    "ENGINE_INPUT_INVALID",
    `the cuda engine norms rows of at most ${MAX_THREADS * PIECES * vector} numbers, not ${width}`,
  );
}
