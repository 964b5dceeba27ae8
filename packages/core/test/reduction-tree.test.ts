import assert from "node:assert/strict";
import fc from "fast-check";
import { maximalNodes, splitPoint, type ReductionNode } from "@segue/core";

describe("the reduction tree", () => {
  it("splits after the largest power of two smaller than the node", () => {
    assert.equal(splitPoint({ lo: 0, hi: 8 }), 4);
    assert.equal(splitPoint({ lo: 0, hi: 7 }), 4);
    assert.equal(splitPoint({ lo: 4, hi: 7 }), 6);
    assert.equal(splitPoint({ lo: 2, hi: 3 }), undefined);
  });

  it("gives whole subtrees to whoever holds all their shards", () => {
    assert.deepEqual(maximalNodes([0, 1, 2], 3), [{ lo: 0, hi: 3 }]);
    assert.deepEqual(maximalNodes([0, 1, 2], 8), [
      { lo: 0, hi: 2 },
      { lo: 2, hi: 3 },
    ]);
    assert.deepEqual(maximalNodes([3, 4, 5, 6, 7], 8), [
      { lo: 3, hi: 4 },
      { lo: 4, hi: 8 },
    ]);
    assert.deepEqual(maximalNodes([], 4), []);
  });

  it("adds in the same order whoever holds which shards", () => {
    // A sum written out as text shows its order: (0+1) is not (1+0).
    const add = (node: ReductionNode): string => {
      const split = splitPoint(node);
      return split === undefined ? String(node.lo) : `(${add({ lo: node.lo, hi: split })}+${add({ lo: split, hi: node.hi })})`;
    };
    const join = (node: ReductionNode, held: ReadonlyMap<string, string>): string => {
      const whole = held.get(`${node.lo}-${node.hi}`);
      const split = splitPoint(node);
      if (whole !== undefined || split === undefined) return whole ?? assert.fail(`nobody holds ${node.lo}`);
      return `(${join({ lo: node.lo, hi: split }, held)}+${join({ lo: split, hi: node.hi }, held)})`;
    };
    fc.assert(
      fc.property(fc.array(fc.nat(3), { minLength: 1, maxLength: 40 }), (owners) => {
        const held = new Map<string, string>();
        for (const worker of new Set(owners)) {
          const shards = owners.flatMap((owner, shard) => (owner === worker ? [shard] : []));
          for (const node of maximalNodes(shards, owners.length)) held.set(`${node.lo}-${node.hi}`, add(node));
        }
        const root = { lo: 0, hi: owners.length };
        assert.equal(join(root, held), add(root));
      }),
    );
  });
});
