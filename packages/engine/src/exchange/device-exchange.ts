import { SLICE_BLOCK_FLOATS, type ReductionNode } from "@segue/core";
import type { GradientExchange } from "./gradient-exchange.js";

/** A {@link GradientExchange} as the training of a device sees it: everything happens in the order of the device's work. */
export interface DeviceExchange<F> extends GradientExchange {
  readonly ownNodes: readonly ReductionNode[];
  /** Where the sums of own nodes belong. */
  readonly nodes: readonly F[];
  /**
   * Where the sum of all nodes comes, for reading alone: peers may be copying it. Of a plan that is sharded, the own slice of it alone.
   */
  readonly total: F;
  /** Of a plan that is sharded. */
  readonly slices?: DeviceSlices<F> | undefined;
  /** Before anything is written to `nodes`. */
  begin(): void;
  /** The own nodes are there: brings all together in `total`. */
  reduce(): void;
}

/** What members who step a slice each tell each other behind {@link DeviceExchange.reduce}: first squares, then weights. */
export interface DeviceSlices<F> {
  /** The own slice. */
  readonly begin: number;
  readonly end: number;
  /** Where the squares of all blocks of the sum come. */
  readonly squares: F;
  /** The part of `squares` that is this member's to write. */
  readonly ownSquares: F;
  gatherSquares(): void;
  /** The own slice of the parameters is stepped: brings the others'. */
  gatherWeights(parameters: F): void;
}

/** Floats that the squares of a vector's blocks take: two for each block. */
export function squaresFloats(length: number): number {
  return 2 * Math.ceil(length / SLICE_BLOCK_FLOATS);
}
