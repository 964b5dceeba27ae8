/** A worker's part in a generation; members are ordered by their first shard. */
export interface LedgerMember {
  readonly workerId: string;
  readonly shards: readonly number[];
}

/** What one member says of a round. */
export interface RoundReport {
  readonly weightsDigest: string;
  readonly results: readonly StepReport[];
  /** Since the member's report before this one, or since it was asked for the first; absent: unknown. */
  readonly elapsedMs?: number;
}

export interface MemberReport extends RoundReport {
  readonly workerId: string;
}

export interface StepReport {
  readonly step: number;
  /** Weighted loss sums, one per shard in the order of the member's list. */
  readonly shardLossSums: readonly number[];
  readonly gradientNorm: number;
  readonly learningRate: number;
  /** Of the member's own shards, without waiting for others. */
  readonly computeMs: number;
  /** Waiting for others' gradients after the own ones. */
  readonly exchangeMs: number;
}

/** What a member says its weights are. */
export interface MemberDigest {
  readonly workerId: string;
  readonly weightsDigest: string;
}

/** A round in flight: all or nothing. */
export interface LedgerRound {
  readonly firstStep: number;
  readonly steps: number;
  /** In the order in which they came. A list, since it is copied at every report: that of a thousand members takes a microsecond. */
  readonly reports: readonly MemberReport[];
}

/**
 * Where a generation stands. `none`: no valid membership, one has to be formed. `joining`: members bring their replicas to `step`.
 * `ready`: a round boundary. `running`: a round is in flight. `reported`: every member has reported it, nothing is committed yet.
 */
export type LedgerPhase = "none" | "joining" | "ready" | "running" | "reported";

/** The record of what is committed for one job, and of who works on what comes next. Changed only by {@link apply}. */
export interface Ledger {
  readonly shards: number;
  /** Shards that must lie on the same worker; divides `shards`. */
  readonly shardsPerPlacement: number;
  readonly totalSteps: number;
  /** Optimizer steps committed. */
  readonly step: number;
  /** Of the weights at `step`; empty at step 0. */
  readonly weightsDigest: string;
  /** The newest step that survives the loss of every worker: that of a checkpoint, or 0. */
  readonly durableStep: number;
  /** Grows with every membership; 0 before the first. */
  readonly generation: number;
  readonly phase: LedgerPhase;
  readonly members: readonly LedgerMember[];
  /** Members that have said Ready in this generation. */
  readonly ready: readonly string[];
  /** Workers that hold weights and optimizer at `step`. */
  readonly holders: readonly string[];
  /**
   * Under sync.optimizer sharded: who holds the moments at `step` of each slice, in the order of slices. Empty: nobody holds any. Absent:
   * holders hold them.
   */
  readonly slices?: readonly (readonly string[])[] | undefined;
  readonly round?: LedgerRound | undefined;
  /** Failures reported since the last commit. */
  readonly failures: number;
  /** Rounds since the last commit after which no majority of members had the same weights. */
  readonly disputes: number;
}

export type LedgerEvent =
  /** A new membership in this order; allowed only when no round is in flight. */
  | { readonly type: "generationFormed"; readonly workerIds: readonly string[] }
  | { readonly type: "memberReady"; readonly generation: number; readonly workerId: string; readonly step: number }
  | { readonly type: "roundStarted"; readonly steps: number }
  | {
      readonly type: "roundReported";
      readonly generation: number;
      readonly workerId: string;
      readonly firstStep: number;
      readonly steps: number;
      readonly report: RoundReport;
    }
  /** Losses, cursors, lane states and step move together: the caller has all of them. */
  | { readonly type: "roundCommitted" }
  /** The worker is lost or released, and all it held is gone. */
  | { readonly type: "workerGone"; readonly workerId: string }
  /** A member could not do its part but still holds what it held. */
  | { readonly type: "memberFailed"; readonly generation: number; readonly workerId: string }
  /** These members' weights differed from `weightsDigest`, that of the majority: the round is void, and all they held is worthless. */
  | { readonly type: "membersExpelled"; readonly workers: readonly MemberDigest[]; readonly weightsDigest: string }
  /** The members' weights differ and nobody knows whose are right: the round is void. */
  | { readonly type: "roundDisputed"; readonly workers: readonly MemberDigest[] }
  /** Membership ends without a loss: pause, drain below the minimum, shutdown. */
  | { readonly type: "dissolved" }
  /** There is no data for the step `step` and those after it. */
  | { readonly type: "dataEnded"; readonly step: number }
  | { readonly type: "checkpointWritten"; readonly step: number }
  /** No worker holds `step` any more; the job goes back to a checkpoint. */
  | { readonly type: "restored"; readonly step: number; readonly weightsDigest: string };

export interface LedgerOrigin {
  readonly shards: number;
  /** @default 1 */
  readonly shardsPerPlacement?: number;
  readonly totalSteps: number;
  readonly step: number;
  readonly weightsDigest: string;
  /** @default false */
  readonly sharded?: boolean;
}

/** A ledger at a checkpoint (or at step 0), without members. */
export function createLedger({ sharded = false, ...origin }: LedgerOrigin): Ledger {
  return {
    shardsPerPlacement: 1,
    ...origin,
    durableStep: origin.step,
    generation: 0,
    phase: "none",
    members: [],
    ready: [],
    holders: [],
    ...(sharded ? { slices: [] } : {}),
    failures: 0,
    disputes: 0,
  };
}

/** Whether the workers that `isThere` can bring others to the ledger's step, without a checkpoint. */
export function isHeldBy({ holders, slices }: Ledger, isThere: (workerId: string) => boolean = () => true): boolean {
  if (!holders.some(isThere)) return false;
  return slices === undefined || (slices.length > 0 && slices.every((ofSlice) => ofSlice.some(isThere)));
}
