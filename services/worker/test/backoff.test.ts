import assert from "node:assert/strict";
import { backoffMs } from "../src/attach/backoff.js";

describe("backoff", () => {
  it("doubles up to five seconds and is spread over the second half", () => {
    assert.equal(backoffMs(1, 0), 100);
    assert.equal(backoffMs(2, 0), 200);
    assert.equal(backoffMs(50, 0), 2500);
    assert.ok(backoffMs(50, 0.999) <= 5000);
  });
});
