import type { ModelSpec } from "@segue/core";
import type { DeviceExchange } from "../exchange/device-exchange.js";
import type { ExchangeOptions, ExchangePlan } from "../exchange/gradient-exchange.js";
import type { DeviceSharing } from "../exchange/device-sharing.js";

/**
 * Legend of shape suffixes. B lanes, T tokens per lane, R = B * T rows (row b * T + t), D model width, I inner width, J width of the
 * input projection [z | x | B | C | dt], C convolution channels (x | B | C), W taps of the convolution, H heads, P width of a head,
 * N state size, G groups, K chunks per lane, V vocabulary. Everything is row-major.
 */

/** Columns [first, first + width) of a matrix whose rows are `stride` apart; the width is clear from the operation. */
export interface Columns<F> {
  readonly data: F;
  readonly first: number;
  readonly stride: number;
}

/** One layer's part of the recurrent state of every lane: lane b begins at `data[b * stride]`. */
export interface LaneParts<F> {
  readonly data: F;
  readonly stride: number;
}

/**
 * What a buffer of a pass holds: sums and other values that need float32; activations, which a device may round to bf16; or sums with a
 * rounded copy beside them for matrix products.
 */
export type BufferKind = "float" | "activation" | "mirrored";

/** Lanes and tokens of a segment, and where documents start in it. */
export interface Segment<I> {
  readonly lanes: number;
  readonly tokens: number;
  /** 1 where state and taps are zero before the token; absent: nowhere. */
  readonly resets_R?: I | undefined;
}

export interface RowsArgs<F, I> {
  readonly rows: number;
  readonly width: number;
  readonly table_VD: F;
  readonly ids_R: I;
  readonly rows_RD: F;
}

export interface MatmulArgs<F> {
  /** out [m, n] = op(a) [m, k] * op(b) [k, n]; a transposed operand is stored the other way round. */
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly a: F;
  readonly b: F;
  readonly out: F;
  readonly transposeA?: boolean | undefined;
  readonly transposeB?: boolean | undefined;
  /** Adds to `out`; false: overwrites it. */
  readonly accumulate?: boolean | undefined;
}

export interface AddNormArgs<F> {
  readonly rows: number;
  readonly width: number;
  readonly eps: number;
  readonly residual_RD: F;
  /** What is added to the residual stream; absent: nothing. */
  readonly delta_RD?: F | undefined;
  readonly weight_D: F;
  /** residual + delta; may be `residual_RD` itself. */
  readonly sum_RD: F;
  readonly out_RD: F;
  readonly inverseRms_R: F;
}

export interface AddNormBackwardArgs<F> {
  readonly rows: number;
  readonly width: number;
  readonly sum_RD: F;
  readonly weight_D: F;
  readonly inverseRms_R: F;
  readonly dOut_RD: F;
  /** Gradient of the sum. */
  readonly dSum_RD: F;
  /** Adds to `dSum_RD` (the gradient that reaches the sum by the residual stream); false: overwrites it. */
  readonly accumulate: boolean;
  readonly dWeight_D: F;
  /** Receives the forward output again, so that nobody has to keep it. */
  readonly out_RD: F;
}

export interface ConvArgs<F, I> extends Segment<I> {
  readonly channels: number;
  readonly taps: number;
  readonly raw: Columns<F>;
  /** [channels, taps]; the last tap multiplies the current token. */
  readonly weight_CW: F;
  readonly bias_C: F;
  /** [taps - 1, channels] per lane, oldest row first; enters as the rows before the segment, leaves as its last rows. */
  readonly state: LaneParts<F>;
  /** Receives the incoming taps for {@link Device.convBackward}. */
  readonly savedTaps_BWC?: F | undefined;
  /** Leaves the taps as they are: the output is wanted once more. Only where {@link Device.economies}. */
  readonly keepState?: boolean | undefined;
  readonly out_RC: F;
}

export interface ConvBackwardArgs<F, I> extends Segment<I> {
  readonly channels: number;
  readonly taps: number;
  readonly raw: Columns<F>;
  readonly weight_CW: F;
  readonly bias_C: F;
  readonly savedTaps_BWC: F;
  /** Used up. */
  readonly dOut_RC: F;
  readonly dRaw: Columns<F>;
  readonly dWeight_CW: F;
  readonly dBias_C: F;
  /** Enters as the gradient of the final taps, leaves as that of the incoming ones; absent: zero, and not wanted. */
  readonly stateGradient?: LaneParts<F> | undefined;
}

export interface TimeStepsArgs<F> {
  readonly rows: number;
  readonly heads: number;
  /** Clamp of the result. */
  readonly min: number;
  readonly max: number;
  readonly raw: Columns<F>;
  readonly bias_H: F;
  readonly dt_RH: F;
}

export interface ScaledTimeStepsArgs<F> extends TimeStepsArgs<F> {
  /** Multiplies the clamped result (a cure, in inference alone); absent: 1. */
  readonly scale?: number | undefined;
}

export interface TimeStepsBackwardArgs<F> extends TimeStepsArgs<F> {
  readonly dDt_RH: F;
  readonly dRaw: Columns<F>;
  readonly dBias_H: F;
}

export interface ScanShape {
  readonly heads: number;
  readonly headDim: number;
  readonly dState: number;
  readonly groups: number;
  /** Tokens per chunk; the last chunk of a lane may be shorter. */
  readonly chunk: number;
}

export interface ScanArgs<F, I> extends Segment<I>, ScanShape {
  /** x [H, P], then B [G, N], then C [G, N] per row. */
  readonly xBC_RC: F;
  /** 0 leaves the state as it is: padding. */
  readonly dt_RH: F;
  readonly aLog_H: F;
  readonly skip_H: F;
  /** [H, P, N] per lane; enters as the initial state, leaves as the final one. */
  readonly state: LaneParts<F>;
  /** Added to dt A of every token (a cure, in inference alone); absent: 0. */
  readonly logRetention?: number | undefined;
  /** Multiplies what every token adds to the state (a cure, in inference alone); absent: 1. */
  readonly insertion?: number | undefined;
  /** Leaves the state as it is, and `chunkStates`: the output is wanted once more. Only where {@link Device.economies}. */
  readonly keepState?: boolean | undefined;
  /** Receives the state before each chunk for {@link Device.scanBackward}, or before the first; scratch in inference. */
  readonly chunkStates_BKHPN: F;
  /** Receives {@link Device.keptStateFloats} for {@link Device.scanBackward}; absent: they are not kept. */
  readonly keptStates?: F | undefined;
  readonly y_RI: F;
}

export interface ScanBackwardArgs<F, I> extends Segment<I>, ScanShape {
  readonly xBC_RC: F;
  readonly dt_RH: F;
  readonly aLog_H: F;
  readonly skip_H: F;
  readonly chunkStates_BKHPN: F;
  readonly keptStates?: F | undefined;
  readonly dY_RI: F;
  readonly dXBC_RC: F;
  readonly dDt_RH: F;
  readonly dALog_H: F;
  readonly dSkip_H: F;
  /** The scan of the same arguments was the last one. */
  readonly followsScan?: boolean | undefined;
  /** Scratch. */
  readonly dChunkStates_BKHPN: F;
  /** Enters as the gradient of the final state, leaves as that of the initial one; absent: zero, and not wanted. */
  readonly stateGradient?: LaneParts<F> | undefined;
}

export interface GatedNormShape {
  readonly rows: number;
  readonly width: number;
  /** Columns normalised together: width / groups. */
  readonly groupWidth: number;
  /** false: norm(y * silu(gate)) * weight, as the released models; true: norm(y) * weight * silu(gate). */
  readonly normBeforeGate: boolean;
}

export interface GatedNormArgs<F> extends GatedNormShape {
  readonly eps: number;
  readonly y_RI: F;
  readonly gate: Columns<F>;
  readonly weight_I: F;
  readonly out_RI: F;
  /** [rows, width / groupWidth] */
  readonly inverseRms: F;
}

export interface GatedNormBackwardArgs<F> extends GatedNormShape {
  readonly y_RI: F;
  readonly gate: Columns<F>;
  readonly weight_I: F;
  readonly inverseRms: F;
  readonly dOut_RI: F;
  readonly dY_RI: F;
  readonly dGate: Columns<F>;
  readonly dWeight_I: F;
  /** Receives the forward output again, so that nobody has to keep it. */
  readonly out_RI: F;
}

export interface HeadLossArgs<F, I> {
  readonly rows: number;
  readonly width: number;
  readonly vocab: number;
  readonly hidden_RD: F;
  readonly table_VD: F;
  readonly labels_R: I;
  /** Receives each row's unweighted cross-entropy. */
  readonly losses_R: F;
  /** Wanted in training: the gradients of the weighted sum of the losses. */
  readonly gradient?: { readonly weights_R: F; readonly dHidden_RD: F; readonly dTable_VD: F } | undefined;
}

export interface AdamWArgs<F> {
  readonly parameters: F;
  readonly gradient: F;
  readonly firstMoment: F;
  readonly secondMoment: F;
  /** Multiplies the gradient first: mean and clipping in one. */
  readonly gradientScale: number;
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  /** 1-based, for bias correction. */
  readonly step: number;
}

/** Of all parameters at once. */
export interface ClippedAdamWArgs<F> extends AdamWArgs<F> {
  /** 0: no clipping; applied after `gradientScale`. */
  readonly clipNorm: number;
  /** Consecutive parts; the weight decay is that of those that decay. */
  readonly entries: readonly { readonly offset: number; readonly size: number; readonly decay: boolean }[];
  /** Clips by the norm of these {@link Device.squaresOfBlocks}, of a whole gradient of which this is a part. */
  readonly squares?: F | undefined;
}

export interface OuterStepArgs<F> {
  /** start - weights, summed over the replicas. Stays as it is: other members may be copying it. */
  readonly changes: F;
  readonly replicas: number;
  readonly learningRate: number;
  readonly momentum: number;
  /** The weights that all replicas started from. */
  readonly start: F;
  /** u */
  readonly velocity: F;
  /** Overwritten. */
  readonly parameters: F;
}

export interface StateStatisticsArgs<F> {
  readonly lanes: number;
  readonly heads: number;
  /** Floats of one head's state, P * N. */
  readonly size: number;
  readonly state: LaneParts<F>;
  /** Receives mean, unbiased variance, root mean square and largest magnitude: [lanes, heads, 4]. */
  readonly out: F;
}

export interface LaneSumsArgs<F> {
  readonly lanes: number;
  readonly tokens: number;
  /** `groups` groups of `width` neighbouring columns. */
  readonly columns: Columns<F>;
  readonly groups: number;
  readonly width: number;
  readonly squared: boolean;
  /** Receives each lane's sum, or sum of squares, over its tokens and the columns of a group: [groups] per lane. */
  readonly out: LaneParts<F>;
}

export interface MixHeadsArgs<F> {
  readonly lanes: number;
  /** Of all layers, if their states lie one after the other. */
  readonly heads: number;
  /** Floats of one head's state, P * N. */
  readonly size: number;
  readonly factors_BH: F;
  /** May be `state` itself. */
  readonly from: LaneParts<F>;
  readonly state: LaneParts<F>;
  /** Adds to `state`; false: overwrites it. */
  readonly accumulate: boolean;
}

/** Copies to the host that are under way. */
export interface Copying {
  /** Ends when they are there. */
  wait(): void;
  /** The device's work from here on comes after them. */
  fence(): void;
}

/**
 * The arithmetic of Mamba-2 on one kind of hardware. F and I are how the device holds floats and 32-bit integers; the model never looks
 * inside. Operations overwrite their outputs unless they say that they add. Results depend on the arguments only, never on how many
 * threads there are.
 */
export interface Device<F, I> {
  /** For people, for example "cpu (AVX-512, 2 threads)". */
  readonly detail: string;

  /**
   * What the backward pass computes again to save memory, layer by layer, see {@link computedAgain}: the more, the less memory and the
   * more time. The bits are the same. The scan keeps the first state of each lane, and others as {@link keptStateFloats} says. Absent:
   * everything is kept, and the scan keeps the state before every chunk of the model's.
   */
  readonly economies?: number;
  /** Makes so many {@link economies}, for want of memory. */
  economise?(economies: number): void;
  /** Elements of the states within the lanes that the scan can keep for its backward pass; 0 or absent: none. */
  keptStateFloats?(shape: ScanShape, lanes: number, tokens: number): number;
  /** What is left of the device's memory; absent: it is the machine's. */
  freeBytes?(): number;
  /** Takes the memory that a training step needs between kernels, so that what is left then is for buffers. */
  reserve?(model: ModelSpec, lanes: number, tokens: number): void;
  /** Bytes that {@link reserve} sees to. */
  reservedBytes?(model: ModelSpec, lanes: number, tokens: number): number;
  /** Gives back what was reserved. */
  unreserve?(): void;

  /** New zeroed storage. */
  floats(length: number, kind?: BufferKind): F;
  ints(length: number): I;
  /** Part of `of`, sharing its memory. */
  slice(of: F, offset: number, length: number): F;
  /** Floats of memory that a buffer takes; absent: as many as it has elements. */
  bufferFloats?(length: number, kind: BufferKind): number;
  /** A buffer that begins at `offset` of `memory`; absent: a slice. */
  buffer?(memory: F, offset: number, length: number, kind: BufferKind): F;
  /** Gives storage back that {@link floats} made, for the next who asks for as much; absent: it goes with its last reference. */
  free?(floats: F): void;
  /** The same for what {@link ints} made. */
  freeInts?(ints: I): void;
  /** Whether floats are float64, on the device and on their way to and from it: for proofs. Absent: float32. */
  readonly isWide?: boolean;
  upload(from: Float32Array | Float64Array, to: F): void;
  uploadInts(from: ArrayLike<number>, to: I): void;
  download(from: F, to: Float32Array | Float64Array): void;
  /** Downloads beside the work that comes after, which may not write to what is copied before {@link Copying.fence}. Absent: they wait. */
  copyOut?(copies: readonly { readonly from: F; readonly to: Float32Array }[]): Copying;
  /** A download that need not be waited for; the function that it returns waits. */
  downloadLater?(from: F, to: Float32Array): () => void;
  /**
   * Does `work`, or again what it did when it was called with the same key and memory before. It may do nothing but operations on that
   * memory and on buffers that are the same for the key.
   */
  replay?(key: string, memory: readonly (F | I)[], work: () => void): void;
  fill(floats: F, value: number): void;
  copy(from: F, to: F): void;
  /** What it does together with other processes' devices; absent: nothing. */
  readonly sharing?: DeviceSharing<F>;
  /** An exchange of vectors of `length` floats by a library that knows the way to other hosts; absent: there is none. */
  openLibraryExchange?(length: number, plan: ExchangePlan, options: ExchangeOptions): DeviceExchange<F>;

  /** rows[r] = table[ids[r]] */
  gatherRows(args: RowsArgs<F, I>): void;
  /** table[ids[r]] += rows[r], in row order */
  scatterAddRows(args: RowsArgs<F, I>): void;
  matmul(args: MatmulArgs<F>): void;
  /** sum = residual + delta; out = sum / rms(sum) * weight (paper.md 7.2). */
  addNorm(args: AddNormArgs<F>): void;
  addNormBackward(args: AddNormBackwardArgs<F>): void;
  /** out = silu(bias + causal depthwise convolution of raw) (paper.md 7.3). */
  conv(args: ConvArgs<F, I>): void;
  convBackward(args: ConvBackwardArgs<F, I>): void;
  /** dt = clamp(softplus(raw + bias)) * scale */
  timeSteps(args: ScaledTimeStepsArgs<F>): void;
  timeStepsBackward(args: TimeStepsBackwardArgs<F>): void;
  /** h_t = exp(dt_t A + logRetention) h_{t-1} + insertion dt_t x_t (outer) B_t; y_t = h_t C_t + skip x_t; A = -exp(aLog) (paper.md 7.3). */
  scan(args: ScanArgs<F, I>): void;
  scanBackward(args: ScanBackwardArgs<F, I>): void;
  gatedNorm(args: GatedNormArgs<F>): void;
  gatedNormBackward(args: GatedNormBackwardArgs<F>): void;
  /** Cross-entropy of hidden * table^T against the labels, in slices: the logits of all rows never exist together. */
  headLoss(args: HeadLossArgs<F, I>): void;
  /** sum += addend */
  add(addend: F, sum: F): void;
  sumOfSquares(floats: F): number;
  /**
   * Sums of squares of blocks of SLICE_BLOCK_FLOATS: two floats of `into` for each, in a form of the device's own. Those of a slice
   * that begins with a block are part of the whole's.
   */
  squaresOfBlocks(floats: F, into: F): void;
  /** The sum of what {@link squaresOfBlocks} left of a vector: the bits of its {@link sumOfSquares}. */
  sumOfBlocks(squares: F): number;
  adamW(args: AdamWArgs<F>): void;
  /** {@link adamW} with clipping by the gradient's norm. @returns the squared norm of the unscaled gradient, once it is there */
  clippedAdamW?(args: ClippedAdamWArgs<F>): () => number;
  /** out = from - subtrahend */
  subtract(from: F, subtrahend: F, out: F): void;
  /** out = from / divisor */
  divide(from: F, divisor: number, out: F): void;
  /**
   * D = changes / replicas; u = momentum u + D; parameters = start - learningRate (D + momentum u). Each line is computed in float64 and then
   * rounded, so the bits are the same everywhere.
   */
  outerStep(args: OuterStepArgs<F>): void;
  stateStatistics(args: StateStatisticsArgs<F>): void;
  /** Sums of activations over time, for statistics and for the decay over a stretch of tokens. */
  laneSums(args: LaneSumsArgs<F>): void;
  /** state = factor of each head * from, or += (cures of the state, in inference). */
  mixHeads(args: MixHeadsArgs<F>): void;

  /** Frees what the device holds beside its floats and ints; idempotent. */
  close(): void;
}
