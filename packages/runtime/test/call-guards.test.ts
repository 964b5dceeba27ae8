import assert from "node:assert/strict";
import { TokenBuckets } from "../src/call-guards.js";

describe("TokenBuckets", () => {
  it("allows the burst, then the rate, each key for itself", () => {
    const buckets = new TokenBuckets({ perSecond: 10, burst: 2 });
    assert.deepEqual(
      [0, 0, 0, 50, 100, 100].map((nowMs) => buckets.take("a", nowMs)),
      [true, true, false, false, true, false],
    );
    assert.equal(buckets.take("b", 100), true);
  });

  it("never saves up more than the burst", () => {
    const buckets = new TokenBuckets({ perSecond: 10, burst: 2 });
    buckets.take("a", 0);
    assert.deepEqual(
      [60_000, 60_000, 60_000].map((nowMs) => buckets.take("a", nowMs)),
      [true, true, false],
    );
  });
});
