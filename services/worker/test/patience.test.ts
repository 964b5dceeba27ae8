import assert from "node:assert/strict";
import { DEFAULT_SPEC, type JobSpec } from "@segue/core";
import { exchangePatienceMs } from "../src/job/patience.js";

describe("patience with a slower member", () => {
  const patienceMs = (sync: Partial<JobSpec["sync"]>): number =>
    exchangePatienceMs({ sync: { ...DEFAULT_SPEC.sync, replicas: 4, ...sync } });

  it("is for a step, or for all steps between two outer ones, as far as timers reach", () => {
    assert.equal(patienceMs({}), 300_000);
    assert.equal(patienceMs({ mode: "diloco", innerSteps: 10 }), 4 * 10 * 300_000);
    assert.equal(patienceMs({ mode: "diloco", innerSteps: 10_000 }), 2 ** 31 - 1);
  });
});
