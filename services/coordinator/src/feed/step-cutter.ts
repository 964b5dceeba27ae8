import type { CorpusText, JobSpec, ParsedSpec } from "@segue/core";

/** One shard's part of a step; row-major [lanesPerShard, segmentsPerStep * segmentTokens] of that step, little-endian, ready for the wire. */
export interface CutShard {
  readonly shard: number;
  /** int32. */
  readonly tokens: Uint8Array;
  /** int32. */
  readonly labels: Uint8Array;
  /** float32; empty: all 1. */
  readonly weights: Uint8Array;
  /** uint8; empty: none. */
  readonly resets: Uint8Array;
}

/** The segments of one step for all shards, and where the data stands after it. */
export interface CutStep {
  /** Sum of label weights over all shards. */
  readonly totalWeight: number;
  /** In order of shard. */
  readonly shards: readonly CutShard[];
  /** Position of every lane after this step, a JSON value from which {@link DataSource.open} goes on. */
  readonly cursor: unknown;
  readonly documentsRead: number;
  readonly documentsDroppedShort: number;
}

/** Cuts the steps of a job in order; a function of spec and cursor alone. */
export interface StepCutter {
  /** Token that ends each document. */
  readonly eosId: number;
  /** The tokenizer.json in use, kept in every checkpoint; absent for bytes. */
  readonly tokenizerJson?: Uint8Array | undefined;
  /** undefined when the data is at its end. */
  next(): Promise<CutStep | undefined>;
  close(): Promise<void>;
}

/** What the documents of a job come to. */
export interface DataPlan {
  /** EXACT: all were counted. ESTIMATED: tokens were counted in a sample. UNKNOWN: too much text to read now. */
  readonly basis: "EXACT" | "ESTIMATED" | "UNKNOWN";
  /** Long enough to be trained on, and left out; 0 when unknown. */
  readonly documents: number;
  readonly documentsTooShort: number;
  /** Of one pass, end tokens included; 0 when unknown. */
  readonly tokens: number;
  /** `train.steps`, or fewer when the documents end before. */
  readonly steps: number;
}

/** A count under way of the steps that documents last for. */
export interface StepCount {
  /** `train.steps`, or fewer when the documents end before. Rejects when a document cannot be read. */
  readonly total: Promise<number>;
  /** The total is no less, by what is counted by now. */
  readonly atLeast: number;
  /** Gives up. Idempotent. */
  close(): void;
}

/** Where the segments of jobs come from. */
export interface DataSource {
  /**
   * Checks that the files a spec names can be read, and settles what depends on them (the vocabulary of a tokenizer file).
   * @returns warnings: what of the files named is left out
   * @throws SegueError SPEC_INVALID with one violation per problem
   */
  prepare(spec: JobSpec): Promise<ParsedSpec>;
  /** @param cursor of the last committed step; undefined: from the beginning */
  open(spec: JobSpec, cursor: unknown): Promise<StepCutter>;
  /** What is known of the documents at submission; undefined: nothing, or they never end. */
  plan?(spec: JobSpec): Promise<DataPlan | undefined>;
  /** Begins to count; undefined where the documents cannot end before `train.steps`. */
  countSteps?(spec: JobSpec): StepCount | undefined;
  /** A prompt of the documents, for evaluations; absent when there are none to read. */
  corpusText?(spec: JobSpec, text: CorpusText): Promise<Int32Array>;
}
