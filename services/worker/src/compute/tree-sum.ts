import { splitPoint, type ReductionNode } from "@segue/core";

/**
 * Sums gradients in the order of the reduction tree: left + right in float32, whoever holds the parts. Keeps the buffers of right subtrees
 * between sums, one per depth.
 */
export class TreeSum {
  readonly #rightOfDepth: Float32Array[] = [];

  /**
   * The sum of `node`. `known` gives the sum of a node, filling the array it is offered or returning one of its own, which is never
   * written to; undefined: add up the node's two halves. The result is in `into` unless `known` gave it.
   */
  sum(
    node: ReductionNode,
    into: Float32Array,
    known: (node: ReductionNode, into: Float32Array) => Float32Array | undefined,
    depth = 0,
  ): Float32Array {
    const given = known(node, into);
    if (given) return given;
    const split = splitPoint(node);
    if (split === undefined) throw new Error(`nothing is known of shard ${node.lo}`);
    const left = this.sum({ lo: node.lo, hi: split }, into, known, depth + 1);
    const right = this.sum({ lo: split, hi: node.hi }, this.#right(depth, into.length), known, depth + 1);
    for (let i = 0; i < into.length; i++) into[i] = (left[i] as number) + (right[i] as number);
    return into;
  }

  #right(depth: number, length: number): Float32Array {
    let buffer = this.#rightOfDepth[depth];
    if (!buffer || buffer.length < length) this.#rightOfDepth[depth] = buffer = new Float32Array(length);
    return buffer.subarray(0, length);
  }
}
