import assert from "node:assert/strict";
import { maximalNodes, splitPoint } from "@segue/core";

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
});
