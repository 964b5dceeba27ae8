import type { ReductionNode } from "@segue/core";

/** One slice of a node's sum: floats, or the bits of bfloat16. */
export interface NodeSlice {
  readonly node: ReductionNode;
  readonly slice: Float32Array | Uint16Array;
}

/** Parts to add up in tree order: the same slice of nodes that together make up `node`; `into` becomes their sum, f32. */
export interface JoinParts {
  readonly node: ReductionNode;
  readonly parts: readonly NodeSlice[];
  readonly into: Float32Array;
}
