import { addsWhole } from "@segue/core";
import { sliceOf, type Membership, type MemberPlan, type Slice } from "./membership.js";

/**
 * How the members of a generation add up their nodes. All members derive the same.
 * - whole: every member pulls every node whole and adds by itself; one way a step.
 * - sliced: every member pulls its slice of every node, adds, and the others pull the sum; two ways a step, but with many members far
 *   fewer bytes: about 2 P a member instead of P for every peer.
 */
export interface ExchangePlan {
  readonly manner: "whole" | "sliced";
  /** The floats this member adds up. */
  readonly own: Slice;
}

export function exchangePlan({ self, peers }: Membership, vectorFloats: number): ExchangePlan {
  const members = [self, ...peers];
  const nodeCounts = members.map(({ nodes }) => nodes.length);
  if (addsWhole(nodeCounts, vectorFloats)) return { manner: "whole", own: { begin: 0, end: vectorFloats } };
  return { manner: "sliced", own: sliceOf(self.index, members.length, vectorFloats) };
}

/** The floats of the sum that a peer adds up. */
export function sumSlice({ peers }: Membership, peer: MemberPlan, vectorFloats: number): Slice {
  return sliceOf(peer.index, peers.length + 1, vectorFloats);
}
