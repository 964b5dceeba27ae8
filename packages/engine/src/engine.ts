import type { ModelSpec, OptimizerSpec, ParameterLayout, TbpttSpec } from "@segue/core";
import type { EngineReplicas } from "./exchange/engine-replicas.js";
import type { ExchangeOptions, ExchangePlan, GradientExchange } from "./exchange/gradient-exchange.js";

/** One segment of a batch of lanes, or several consecutive ones for {@link Engine.forwardBackward}; arrays are row-major [lanes, tokens]. */
export interface SegmentBatch {
  readonly lanes: number;
  /** Tokens per lane in this segment. */
  readonly tokens: number;
  readonly tokens_BT: Int32Array;
  readonly labels_BT: Int32Array;
  /** Loss weight per label; 0 masks it. Absent: all 1. */
  readonly weights_BT?: Float32Array | undefined;
  /** 1: ssm state and conv taps are zero before this token (a document starts here). Absent: none. */
  readonly resets_BT?: Uint8Array | undefined;
}

/** How a batch is cut into segments, what of the state each takes over from the one before, and how far gradients flow back. */
export type SegmentRules = Pick<TbpttSpec, "segmentTokens" | "gradient" | "carrySsm" | "carryConv">;

/** Recurrent states of `lanes` lanes, kept by the engine (on its device). Freed with {@link Engine.freeStates}. */
export interface LaneStates {
  readonly lanes: number;
}

/** A shard's part of a step. */
export interface TrainingPart {
  readonly batch: SegmentBatch;
  readonly states: LaneStates;
}

export interface TrainingResult {
  /** The parts' weighted loss sums. */
  readonly lossSums: readonly number[];
  /** Of the mean gradient, before clipping. */
  readonly gradientNorm: number;
  /** From the last own gradient to the sum of all members' being there; 0 without an exchange. */
  readonly exchangeMs: number;
}

/** Floats of a flat vector from number `offset` on. */
export interface FloatStretch {
  readonly floats: Float32Array;
  readonly offset: number;
}

/** Where {@link Engine.snapshot} copies to. */
export interface EngineSnapshot {
  readonly parameters: readonly FloatStretch[];
  readonly firstMoment: readonly FloatStretch[];
  readonly secondMoment: readonly FloatStretch[];
  /** `into` is row-major [lanes, laneStateFloats(model)]. */
  readonly states: readonly { readonly states: LaneStates; readonly into: Float32Array }[];
}

export interface AdamWStep {
  readonly optimizer: OptimizerSpec;
  /** Learning rate of this step, the schedule already applied. */
  readonly learningRate: number;
  /** 1-based number of the step, for bias correction. */
  readonly step: number;
  /** Divides the gradient sums: the weighted token count of the whole step. */
  readonly totalWeight: number;
}

/** The recurrence as cures change it in inference (paper.md sections 2.1 and 2.4); neutral: 0, 1, 1. */
export interface Recurrence {
  /** Added to dt A of every token. */
  readonly logRetention: number;
  /** Multiplies what every token adds to the state. */
  readonly insertion: number;
  readonly dtScale: number;
}

/** Sums of dt, as it was used, over a pass: its decay is exp(A dt). */
export interface DtSums {
  readonly dt_BLH: Float64Array;
}

/** What a pass did in every layer: sums over its tokens (and, of squares, over the columns of a head or group). */
export interface LayerMoments extends DtSums {
  /** Of the squares of x, B and C as they enter the recurrence. */
  readonly x2_BLH: Float64Array;
  readonly b2_BLG: Float64Array;
  readonly c2_BLG: Float64Array;
}

/** @throws SegueError CURE_UNSUPPORTED by engines that cannot do it */
export interface ForwardOptions {
  readonly recurrence?: Recurrence | undefined;
  /** Overwritten; see {@link newLayerMoments}. */
  readonly moments?: DtSums | LayerMoments | undefined;
}

/** A batch without labels. */
export type PromptBatch = Pick<SegmentBatch, "lanes" | "tokens" | "tokens_BT" | "resets_BT">;

export interface EngineDescription {
  readonly name: "cuda" | "cpu" | "tfjs";
  /** For people, for example "tfjs (wasm, SIMD)" or "cpu (AVX-512, 2 threads)". */
  readonly detail: string;
}

/**
 * A model on a device: parameters, AdamW moments and the arithmetic on them. All calls are synchronous and belong on a compute
 * thread; none keeps a reference to an array it is given. The same calls in the same order give the same bits.
 */
export interface Engine {
  readonly description: EngineDescription;
  readonly model: ModelSpec;
  readonly layout: ParameterLayout;

  /** Flat parameters in the order of `layout`: as many as `into` holds, from number `offset` on (default 0). */
  readParameters(into: Float32Array, offset?: number): void;
  /** All of them, or with an `offset` as many as `from` holds. */
  writeParameters(from: Float32Array, offset?: number): void;
  /** AdamW's first and second moments, flat as the parameters and in parts as they. */
  readMoments(first: Float32Array, second: Float32Array, offset?: number): void;
  writeMoments(first: Float32Array, second: Float32Array, offset?: number): void;

  /**
   * Drops the moments and holds those of floats [begin, end) alone from now on, zero: only an exchange whose plan is sharded can step them.
   * Does nothing where these are held already. Absent: the engine always holds all.
   */
  holdMoments?(begin: number, end: number): void;

  /**
   * Copies weights, moments and states as they are after the steps begun so far, while steps that are begun afterwards go on.
   * @returns waits for the copy. Absent: only the reading calls do this
   */
  snapshot?(into: EngineSnapshot): () => void;

  /** Zero states. */
  createStates(lanes: number): LaneStates;
  freeStates(states: LaneStates): void;
  /** `copies` lanes that each begin with the state of one lane, for prompts that share what came before. */
  forkStates(states: LaneStates, lane: number, copies: number): LaneStates;
  /** Zeroes the SSM part or the convolution taps of every lane. */
  zeroStates(states: LaneStates, part: "ssm" | "conv"): void;
  /** Row-major [lanes, laneStateFloats(model)]: per lane ssm [layers, heads, headDim, dState], then conv [layers, dConv - 1, convDim]. */
  readStates(states: LaneStates, into: Float32Array): void;
  writeStates(states: LaneStates, from: Float32Array): void;
  /**
   * Into the SSM states: `factors_BLH`, one for each head, times those of `from` (which may be the same); added to what is there, or instead of
   * it. Convolution taps stay. Absent where cures are unsupported.
   */
  mixStates?(into: LaneStates, from: LaneStates, factors_BLH: Float32Array | Float64Array, accumulate: boolean): void;
  /** Frobenius norm of each head's SSM state, [lanes, layers, heads]. Absent where cures are unsupported. */
  headNorms?(states: LaneStates): Float32Array;

  /**
   * Forward and backward over the segments that `rules` cut the batch into; without rules the batch is one segment. The states enter as
   * the initial states of the first segment (no gradient flows into them) and leave as the final states of the last. Every segment,
   * the first included, starts with zeros in what the rules do not carry. Overwrites `gradient` (flat) with the gradient of the weighted
   * *sum* of the labels' cross-entropies of all segments. Gradients stop at each segment's start (`truncated`) or flow back to the start
   * of the batch by what is carried (`full`).
   * @returns that weighted loss sum
   */
  forwardBackward(batch: SegmentBatch, states: LaneStates, gradient: Float32Array, rules?: SegmentRules): number;

  /**
   * One AdamW step from summed gradients: divides by totalWeight, clips by global norm, decays the decayed tensors.
   * @returns the global norm of the mean gradient before clipping
   */
  applyAdamW(gradientSum: Float32Array, step: AdamWStep): number;

  /** Whether a device of its own computes, so that steps may be begun before the one before is waited for: see {@link trainStep}. */
  readonly worksAhead?: boolean;
  /**
   * {@link forwardBackward} of each part, the sum (with an exchange: of all members' parts) of the gradients in the order of the reduction tree, and {@link applyAdamW}: the same
   * bits, but nothing leaves the device between them.
   * @returns waits for the step; calls in between may be made without waiting
   */
  trainStep?(
    parts: readonly TrainingPart[],
    step: AdamWStep,
    rules?: SegmentRules,
    exchange?: GradientExchange,
  ): () => TrainingResult;
  /**
   * Opens an exchange of gradients between members' devices for {@link trainStep}, whose parts are then those of the member's nodes in
   * order. One at a time. Absent: they can only be exchanged by way of the caller's memory.
   * @throws SegueError EXCHANGE_UNAVAILABLE
   */
  openExchange?(plan: ExchangePlan, options: ExchangeOptions): GradientExchange;
  /**
   * Opens what replicas need, whose steps are then {@link trainStep} without the exchange, which is one of three vectors.
   * @throws SegueError DEVICE_OUT_OF_MEMORY
   */
  openReplicas?(exchange: GradientExchange): EngineReplicas;

  /** Forward only; advances the states. @returns logits after the last token, [lanes, vocab] */
  prefill(batch: PromptBatch, states: LaneStates, options?: ForwardOptions): Float32Array;

  /** Forward only; advances the states. @returns unweighted cross-entropy of every label, [lanes, tokens] */
  score(batch: SegmentBatch, states: LaneStates, options?: ForwardOptions): Float32Array;

  close(): void;
}

export interface EngineOptions {
  readonly model: ModelSpec;
  readonly precision: "f32" | "bf16";
  /** CPU threads; 0: as many as there are cores. */
  readonly threads: number;
  /** Which of the visible GPUs (`CUDA_VISIBLE_DEVICES` says which those are). @default 0 */
  readonly gpu?: number | undefined;
}

/** A GPU that an engine can use. */
export interface GpuDescription {
  readonly name: string;
  /** "GPU-" and 16 bytes in hex: the same for every process, whatever it sees and in which order. */
  readonly uuid: string;
  readonly memoryBytes: number;
  /** Its number among the visible ones. */
  readonly ordinal: number;
  /** How many this process sees. */
  readonly visible: number;
}
