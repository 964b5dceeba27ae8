import { SegueError, type ReductionNode } from "@segue/core";

/** A member of a generation as an exchange sees it. */
export interface ExchangeMember {
  /** The sums that it makes of its own shards, in their order. */
  readonly nodes: readonly ReductionNode[];
  /** The floats of every node that it adds up, [begin, end). */
  readonly begin: number;
  readonly end: number;
}

/** Who brings what together. All members of a generation have the same plan but for `self`. */
export interface ExchangePlan {
  readonly transport: "ipc" | "nccl";
  readonly members: readonly ExchangeMember[];
  /** Place in `members`. */
  readonly self: number;
  /** The node whose sum is wanted. */
  readonly root: ReductionNode;
  /**
   * Every member steps its own slice alone (ZeRO-1; `optimizerSlice`), and the new weights come together instead of the sums.
   */
  readonly sharded?: boolean | undefined;
  /** Vectors of P floats that are summed at a time: 1 for gradients, 3 for replicas. @default 1 */
  readonly vectors?: number | undefined;
  /** What nodes, and sums that members tell each other, are rounded to. @default "f32" */
  readonly wire?: "f32" | "bf16" | undefined;
}

export interface ExchangeOptions {
  /** Called over and over while others are waited for; what it throws gives the exchange up. */
  readonly check: () => void;
  /** How long a slower member may take for its part of a step. */
  readonly patienceMs: number;
  /** Path of NCCL's library, if the loader does not find it. */
  readonly ncclLibrary?: string | undefined;
}

/**
 * Where an engine's gradients meet those of other members without leaving the members' devices. Every member tells its offer to the others,
 * and connects when it has those of all.
 */
export interface GradientExchange {
  /** What the others need in order to reach this member. */
  readonly offer: string;
  /** Bytes that came from other members so far. */
  readonly receivedBytes: number;
  /**
   * @param offers by member, the own one included
   * @throws SegueError EXCHANGE_UNAVAILABLE when a member cannot be reached in this way; what `check` throws
   */
  connect(offers: readonly string[]): void;
  /** Others may wait for this member in vain afterwards; they give up by themselves. Idempotent. */
  close(): void;
}

/** This way of exchanging gradients is not to be had; another one may be. */
export function exchangeUnavailable(what: string, cause?: unknown): SegueError {
  return new SegueError("EXCHANGE_UNAVAILABLE", what, { status: "FAILED_PRECONDITION", cause });
}

export function exchangeTimedOut(what: string): SegueError {
  return new SegueError("EXCHANGE_TIMED_OUT", what, { status: "UNAVAILABLE" });
}
