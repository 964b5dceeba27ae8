import { SegueError, type CorpusText, type JobSpec, type ParsedSpec } from "@segue/core";

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
  /** What the data is, a JSON value: equal for equal documents and tokenizers. */
  readonly fingerprint?: unknown;
  /** What of the files named is left out, in sentences for people. */
  readonly leftOut?: readonly string[] | undefined;
  /** Token that ends each document. */
  readonly eosId: number;
  /** The tokenizer.json in use, kept in every checkpoint; absent for bytes. */
  readonly tokenizerJson?: Uint8Array | undefined;
  /**
   * undefined when the data is at its end.
   * @throws SegueError see {@link isDataTrouble}; the cutter cannot go on then
   */
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
  /** `train.steps`, or fewer when the documents end before. Rejects with DATA_CHANGED, DATA_UNREADABLE. */
  readonly total: Promise<number>;
  /** The total is no less, by what is counted by now. */
  readonly atLeast: number;
  /** Gives up. Idempotent. */
  close(): void;
}

/** What a job was trained on, and how far. */
export interface DataPosition {
  /** Of the last committed step; absent: from the beginning. */
  readonly cursor?: unknown;
  /** What training began with, where there is no cursor yet; absent: it has not begun. */
  readonly fingerprint?: unknown;
  /** SHA-256 of the tokenizer.json of the checkpoint that the cursor is of. */
  readonly tokenizerSha256?: string | undefined;
}

const TROUBLE: readonly string[] = ["DATA_CHANGED", "DATA_UNREADABLE"];

/** Whether an error of a data source is over once people put the data back as it was: a job waits for that, paused. */
export function isDataTrouble(error: unknown): error is SegueError {
  return error instanceof SegueError && TROUBLE.includes(error.code);
}

/** Where the segments of jobs come from. */
export interface DataSource {
  /**
   * Checks that the files a spec names can be read, and settles what depends on them (the vocabulary of a tokenizer file).
   * @returns warnings: what of the files named is left out
   * @throws SegueError SPEC_INVALID with one violation per problem
   */
  prepare(spec: JobSpec): Promise<ParsedSpec>;
  /** @throws SegueError DATA_CHANGED, DATA_UNREADABLE */
  open(spec: JobSpec, from: DataPosition): Promise<StepCutter>;
  /** What is known of the documents at submission; undefined: nothing, or they never end. */
  plan?(spec: JobSpec): Promise<DataPlan | undefined>;
  /**
   * Begins to count; undefined where the documents cannot end before `train.steps`.
   * @param fingerprint of what the job is trained on; absent: of whatever is there
   */
  countSteps?(spec: JobSpec, fingerprint?: unknown): StepCount | undefined;
  /**
   * A prompt of the documents, for evaluations; absent when there are none to read.
   * @param fingerprint of what the job was trained on; absent: unknown
   * @throws SegueError DATA_CHANGED, DATA_UNREADABLE
   */
  corpusText?(spec: JobSpec, text: CorpusText, fingerprint?: unknown): Promise<Int32Array>;
}
