/** What an outer step is made from. */
export interface OuterSettings {
  /** Of all members. */
  readonly replicas: number;
  readonly learningRate: number;
  readonly momentum: number;
}

/**
 * The replicas of one member, which its engine trains one after the other, and the outer steps that join those of all members (`sync.mode:
 * diloco`), with an exchange of three vectors. Between {@link begin} and {@link end} come the replica's steps, at least one; of vectors of P
 * floats nothing leaves the device.
 */
export interface EngineReplicas {
  /** Outer momentum, flat as the parameters: as many floats as `into` holds, from number `offset` on. */
  readMomentum(into: Float32Array, offset: number): void;
  writeMomentum(from: Float32Array, offset: number): void;
  /** Before the steps of a replica: weights and moments are kept (first replica) or go back to what was kept. */
  begin(isFirst: boolean): void;
  /** After the steps of a replica; replicas come in the order of the member's nodes. */
  end(): void;
  /**
   * After the last replica: weights, moments and outer momentum become those of the outer step.
   * @returns waits until all members' replicas are there; milliseconds from the last own one on
   */
  outerStep(outer: OuterSettings): () => number;
  /** Gives its memory back, after the exchange was closed. Idempotent. */
  close(): void;
}
