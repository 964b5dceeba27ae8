import type { JoinParts } from "../compute/join-parts.js";
import { sharedFloats } from "../compute/shared.js";

/** What has come from peers so far. */
export interface PullCounts {
  readonly pulls: number;
  readonly bytes: number;
}

/** What the compute thread has yet to add into the total. */
export type PartsToAdd = Omit<JoinParts, "into">;

/**
 * How the members of one generation bring their nodes' sums together. Steps come in order; arrays are in shared memory and belong to the
 * compute thread from `begin` of their step until `begin` of the step after the next.
 */
export interface Exchange {
  /** Everything that came since the generation began. */
  readonly counts: PullCounts;
  /** Where the sum of own node `index` belongs, f32 [P]. */
  node(step: number, index: number): Float32Array;
  /** Where the sum of all shards belongs, f32 [P]. */
  total(step: number): Float32Array;
  /** Before anything is written for the step. */
  begin(step: number): void;
  /** Own node `index` is computed. @throws SegueError VOID */
  offer(step: number, index: number): Promise<void>;
  /**
   * Ends when the total is there, but for the parts returned.
   * @throws PeerFailure; SegueError VOID
   */
  gather(step: number): Promise<PartsToAdd | undefined>;
}

/** Of a member without peers: its only node is the total. */
export class SoleExchange implements Exchange {
  readonly counts: PullCounts = { pulls: 0, bytes: 0 };
  /** Nobody but the compute thread reads it, in order, so that one does for all steps. */
  readonly #sum: Float32Array;

  constructor(vectorFloats: number) {
    this.#sum = sharedFloats(vectorFloats);
  }

  node(): Float32Array {
    return this.#sum;
  }
  total(): Float32Array {
    return this.#sum;
  }
  begin(): void {}
  async offer(): Promise<void> {}
  async gather(): Promise<undefined> {
    return undefined;
  }
}
