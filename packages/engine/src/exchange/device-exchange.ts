import type { ReductionNode } from "@segue/core";
import type { GradientExchange } from "./gradient-exchange.js";

/** A {@link GradientExchange} as the training of a device sees it: everything happens in the order of the device's work. */
export interface DeviceExchange<F> extends GradientExchange {
  readonly ownNodes: readonly ReductionNode[];
  /** Where the sums of own nodes belong. */
  readonly nodes: readonly F[];
  /** Where the sum of all nodes comes, for reading alone: peers may be copying it. */
  readonly total: F;
  /** Before anything is written to `nodes`. */
  begin(): void;
  /** The own nodes are there: brings all together in `total`. */
  reduce(): void;
}
