import assert from "node:assert/strict";
import { thinned } from "../src/loss-view.js";

describe("thinned", () => {
  it("keeps short curves, and what is no number", () => {
    assert.deepEqual(thinned({ bucketTokens: 8, losses: [3, null, 1] }, 3), { positions: [8, 16, 24], losses: [3, null, 1] });
    assert.deepEqual(thinned({ bucketTokens: 8, losses: [] }, 3), { positions: [], losses: [] });
  });

  it("takes means over more and more buckets of long ones, without losing one", () => {
    const losses = Array.from({ length: 10_000 }, (_, bucket) => bucket);
    const { positions, losses: means } = thinned({ bucketTokens: 1, losses }, 50);
    assert.ok(positions.length <= 50);
    const widths = positions.map((position, index) => position - (positions[index - 1] ?? 0));
    assert.equal(
      means.reduce<number>((sum, mean, index) => sum + (mean ?? NaN) * widths[index]!, 0),
      (10_000 * 9_999) / 2,
    );
    assert.deepEqual([widths[0], positions.at(-1)], [1, 10_000]);
    assert.deepEqual(
      [...widths].sort((a, b) => a - b),
      widths,
    );
  });
});
