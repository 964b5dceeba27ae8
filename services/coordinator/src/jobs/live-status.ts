import type { StepTimes } from "../run/stragglers.js";

export interface MemberStatus {
  readonly workerId: string;
  readonly shards: number;
  /** Milliseconds of computing one shard of one step, smoothed over rounds; 0 before the first. */
  readonly shardMs: number;
  readonly straggler: boolean;
  /** undefined before the first round. */
  readonly stepTimes: StepTimes | undefined;
}

/** What a job's training looks like right now; derived, never stored. */
export interface LiveStatus {
  readonly step: number;
  readonly loss: number;
  readonly tokensPerSecond: number;
  readonly learningRate: number;
  readonly gradientNorm: number;
  readonly workers: number;
  /** The present membership, in order of shards. */
  readonly members: readonly MemberStatus[];
  readonly documentsRead: number;
  readonly documentsDroppedShort: number;
  readonly engine: string;
  /** How members bring their gradients together, and why so; empty for one member. */
  readonly transport: string;
  /** Why free workers are not used; empty when there are none. */
  readonly leftAside: string;
  /** Of the newest checkpoint; 0 and empty when there is none. */
  readonly checkpointStep: number;
  readonly checkpointDigest: string;
  /** Why the checkpoint that was wanted last is not on disk; empty when it is. */
  readonly notDurable: string;
  /** Which checkpoints are not in the object store as they should be, and why; empty when all are, or there is none. */
  readonly notCopied: string;
  /** Which evaluations are not queued, and why; empty when all are. */
  readonly evaluationsNotQueued: string;
  /** Which checkpoints were passed over, damaged or out of reach; empty again when a new one is written. */
  readonly checkpointWarning: string;
  /** What of the files that the data names is left out; empty: nothing. */
  readonly leftOut: string;
}

export const NOT_STARTED: LiveStatus = {
  step: 0,
  loss: 0,
  tokensPerSecond: 0,
  learningRate: 0,
  gradientNorm: 0,
  workers: 0,
  members: [],
  documentsRead: 0,
  documentsDroppedShort: 0,
  engine: "",
  transport: "",
  leftAside: "",
  checkpointStep: 0,
  checkpointDigest: "",
  notDurable: "",
  notCopied: "",
  evaluationsNotQueued: "",
  checkpointWarning: "",
  leftOut: "",
};
