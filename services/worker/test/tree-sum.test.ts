import assert from "node:assert/strict";
import { TreeSum } from "../src/compute/tree-sum.js";

describe("tree sum", () => {
  // In float32, 1e8 + 1 = 1e8: the order of additions shows.
  const values = [1e8, 1, -1e8, 1, 3].map((value) => Float32Array.of(value));
  const leaf = ({ lo, hi }: { lo: number; hi: number }): Float32Array | undefined => (hi - lo === 1 ? values[lo] : undefined);

  it("adds left + right at every node", () => {
    const into = new Float32Array(1);
    new TreeSum().sum({ lo: 0, hi: 5 }, into, leaf);
    const f = Math.fround;
    assert.equal(into[0], f(f(f(1e8 + 1) + f(-1e8 + 1)) + 3));
  });

  it("gives the same bits from sums of subtrees as from leaves, and leaves both as they were", () => {
    const sums = new TreeSum();
    const whole = sums.sum({ lo: 0, hi: 5 }, new Float32Array(1), leaf).slice();
    const left = sums.sum({ lo: 0, hi: 4 }, new Float32Array(1), leaf);
    const before = left.slice();
    const joined = sums.sum({ lo: 0, hi: 5 }, new Float32Array(1), (node) => (node.hi === 4 ? left : leaf(node)));
    assert.deepEqual(joined, whole);
    assert.deepEqual(left, before);
    assert.deepEqual(
      values.map(([value]) => value),
      [1e8, 1, -1e8, 1, 3],
    );
  });

  it("sums slices shorter than those before", () => {
    const sums = new TreeSum();
    sums.sum({ lo: 0, hi: 2 }, new Float32Array(3), ({ lo, hi }) => (hi - lo === 1 ? new Float32Array(3) : undefined));
    const sum = sums.sum({ lo: 0, hi: 2 }, new Float32Array(1), leaf);
    assert.equal(sum.length, 1);
  });
});
