/** A node of the fixed reduction tree over shard numbers: the shards lo (inclusive) to hi (exclusive). */
export interface ReductionNode {
  readonly lo: number;
  readonly hi: number;
}

/** Where a node splits into left and right: lo + the largest power of two smaller than hi - lo. Undefined for a leaf. */
export function splitPoint({ lo, hi }: ReductionNode): number | undefined {
  const size = hi - lo;
  if (size <= 1) return undefined;
  let half = 1;
  while (half * 2 < size) half *= 2;
  return lo + half;
}

/** The largest nodes of the tree over [0, totalShards) whose shards are all in `shards`, in ascending order. */
export function maximalNodes(shards: readonly number[], totalShards: number): ReductionNode[] {
  const held = new Set(shards);
  const visit = (node: ReductionNode): ReductionNode[] => {
    let heldInside = 0;
    for (let shard = node.lo; shard < node.hi; shard++) if (held.has(shard)) heldInside++;
    if (heldInside === 0) return [];
    if (heldInside === node.hi - node.lo) return [node];
    const split = splitPoint(node);
    return split === undefined ? [] : [...visit({ lo: node.lo, hi: split }), ...visit({ lo: split, hi: node.hi })];
  };
  return visit({ lo: 0, hi: totalShards });
}
