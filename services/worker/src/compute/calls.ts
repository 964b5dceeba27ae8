import type { InitialStateRule, PagedFloats, ReductionNode } from "@segue/core";
import type {
  AdamWStep,
  EngineDescription,
  EngineOptions,
  ExchangePlan,
  GpuDescription,
  OuterSettings,
  SegmentRules,
  TrainingResult,
} from "@segue/engine";
import type { JoinParts } from "./join-parts.js";

/** What `auto` and the named engines come to on this machine. */
export interface EngineOffer {
  readonly name: string;
  readonly detail: string;
  /** Why it does not load; absent when it does. */
  readonly reason?: string | undefined;
  /** Of engines on a GPU. */
  readonly gpu?: GpuDescription | undefined;
}

export type EngineChoice = "auto" | "cuda" | "cpu" | "tfjs";

/**
 * Weights, first and second moments, and under diloco the outer momentum; f32 [P] each, in pages of shared memory. Where each member steps a
 * slice, the weights alone.
 */
export type ModelVectors = readonly PagedFloats[];

/** First and second moments of the floats [begin, end) of the parameters, in pages of shared memory. */
export interface MomentSlice {
  readonly begin: number;
  readonly end: number;
  readonly first: PagedFloats;
  readonly second: PagedFloats;
}

/** Lane states of one shard, f32 [lanesPerShard, laneStateFloats], in shared memory. */
export interface ShardStates {
  readonly shard: number;
  readonly states: Float32Array;
}

/** The segments of one shard in one step; arrays are row-major [lanesPerShard, segmentsPerStep * segmentTokens] of that step. */
export interface ShardBatch {
  readonly shard: number;
  readonly tokens: Int32Array;
  readonly labels: Int32Array;
  readonly weights?: Float32Array | undefined;
  readonly resets?: Uint8Array | undefined;
}

/**
 * The calls the compute thread answers, one at a time and in order. Arrays that come back filled (`model`, `states`, `into`) are views
 * of shared memory. `epoch` numbers the replica's attempts: calls of an epoch below the shared fence throw VOID and change nothing.
 */
export interface ComputeCalls {
  /** Which engines load here, best first, with how many threads of the worker's and on which GPU. */
  probe: { request: { readonly threads: number; readonly gpu: number }; response: readonly EngineOffer[] };
  /** NCCL's version, for example "2.28.9"; empty without NCCL. */
  ncclVersion: { request: { readonly library?: string | undefined }; response: string };
  /** Creates the engine, replacing an earlier one. */
  open: {
    request: { readonly engine: EngineChoice; readonly options: EngineOptions; readonly lanesPerShard: number };
    response: { readonly description: EngineDescription; readonly parameters: number };
  };
  /** Fills `model` with the seed's initial weights and zeros. */
  initialise: { request: { readonly seed: number; readonly model: ModelVectors }; response: null };
  /** Takes over weights, moments (those of a slice, if given), outer momentum if there is one, and the states of exactly these shards. */
  load: {
    request: { readonly model: ModelVectors; readonly slice?: MomentSlice | undefined; readonly states: readonly ShardStates[] };
    response: null;
  };
  /** Writes what `load` takes, as it is after the steps before. */
  save: { request: ComputeCalls["load"]["request"] & { readonly epoch: number }; response: null };
  /** Forward and backward over the shards of one tree node; `into`, f32 [P], becomes the node's gradient sum. */
  gradient: {
    request: {
      readonly epoch: number;
      readonly node: ReductionNode;
      readonly batches: readonly ShardBatch[];
      readonly rules: SegmentRules;
      /** Of lanes whose state is dropped before the first token; absent: zero. */
      readonly initialState?: InitialStateRule | undefined;
      readonly into: Float32Array;
    };
    response: { readonly lossSums: readonly number[]; readonly computeMs: number };
  };
  /** Adds the parts, the same slice of several nodes that make up `node`, in tree order; `into` becomes their sum. */
  join: { request: JoinParts & { readonly epoch: number }; response: null };
  /** Opens the engine's exchange with other members' engines; replaces an earlier one, as `load` ends it. */
  exchangeOpen: {
    request: {
      readonly epoch: number;
      readonly plan: ExchangePlan;
      readonly patienceMs: number;
      readonly ncclLibrary?: string | undefined;
    };
    response: { readonly offer: string };
  };
  /** Connects it, by all members' offers. */
  exchangeConnect: { request: { readonly epoch: number; readonly offers: readonly string[] }; response: null };
  /** Rounds to bfloat16, in place; `into` gets the bits. */
  round: { request: { readonly epoch: number; readonly floats: Float32Array; readonly into: Uint16Array }; response: null };
  /** Each `into` becomes the floats that the bfloat16 of `from` stand for. */
  widen: {
    request: { readonly epoch: number; readonly pairs: readonly { readonly from: Uint16Array; readonly into: Float32Array }[] };
    response: null;
  };
  /** One optimizer step. With `parts`, these are added into `gradientSum` first. */
  apply: {
    request: {
      readonly epoch: number;
      readonly gradientSum: Float32Array;
      readonly parts?: Omit<JoinParts, "into"> | undefined;
      readonly adamw: AdamWStep;
    };
    response: { readonly gradientNorm: number; readonly computeMs: number };
  };
  /**
   * A step from own shards, in order, to the weights: for the only member or a replica, or with the exchange of gradients that is open.
   * Gradients stay in the engine if it can do that.
   */
  wholeStep: {
    request: Omit<ComputeCalls["gradient"]["request"], "node" | "into"> & { readonly adamw: AdamWStep };
    response: TrainingResult & { readonly computeMs: number; readonly receivedBytes: number };
  };
  /** Before the inner steps of a replica: the engine's weights and moments are kept (first replica) or go back to what was kept. */
  replicaBegin: { request: { readonly epoch: number; readonly isFirst: boolean }; response: null };
  /**
   * After the inner steps of a replica: `into`, f32 [3, P], becomes how far its weights have gone, and its moments. Absent: they stay in the
   * engine, with the exchange that is open.
   */
  replicaEnd: { request: { readonly epoch: number; readonly into?: Float32Array | undefined }; response: null };
  /**
   * The outer step from the sum over all replicas, f32 [3, P]. With `parts`, these are added into `sum` first. Without `sum`, the engine's
   * exchange makes it.
   */
  outerStep: {
    request: {
      readonly epoch: number;
      readonly sum?: Float32Array | undefined;
      readonly parts?: Omit<JoinParts, "into"> | undefined;
      readonly outer: OuterSettings;
    };
    response: { readonly exchangeMs: number; readonly receivedBytes: number };
  };
  /** Gives everything back and ends the thread, by itself. */
  end: { request: Record<string, never>; response: null };
}

export type CallName = keyof ComputeCalls;

export interface ComputeRequest {
  readonly id: number;
  readonly name: CallName;
  readonly request: unknown;
}

export type ComputeResponse =
  | { readonly id: number; readonly ok: true; readonly response: unknown }
  | {
      readonly id: number;
      readonly ok: false;
      readonly code: string;
      readonly message: string;
      readonly stack?: string | undefined;
    };

/** What a compute thread is started with: one shared int, the lowest epoch that still counts. */
export interface ComputeThreadData {
  readonly fence: Int32Array;
}

/** Code of calls whose epoch the fence has passed. */
export const VOID = "VOID";
