import assert from "node:assert/strict";
import fc from "fast-check";
import { superseded, type CheckpointHealth, type RetainedCheckpoint } from "../src/checkpoints/retention.js";

const all = (health: CheckpointHealth, ...steps: number[]): RetainedCheckpoint[] => steps.map((step) => ({ step, health }));

describe("retention of checkpoints", () => {
  it("keeps the newest and the multiples of keepEvery", () => {
    const steps = all("verified", 100, 200, 300, 400, 500);
    assert.deepEqual(superseded(steps, { keepLast: 2, keepEvery: 0 }), [300, 200, 100]);
    assert.deepEqual(superseded(steps, { keepLast: 2, keepEvery: 200 }), [300, 100]);
    assert.deepEqual(superseded(steps, { keepLast: 9, keepEvery: 0 }), []);
  });

  it("keeps the newest verified one though newer ones exist that nobody has read", () => {
    const steps = [...all("unknown", 300, 400), ...all("verified", 100, 200)];
    assert.deepEqual(superseded(steps, { keepLast: 1, keepEvery: 0 }), [300, 100]);
  });

  it("does not count damaged ones, and deletes them when a newer one is verified", () => {
    const damaged = all("damaged", 300, 600);
    assert.deepEqual(superseded([...all("verified", 100, 200), ...damaged], { keepLast: 2, keepEvery: 300 }), []);
    assert.deepEqual(superseded([...all("verified", 200, 400), ...damaged], { keepLast: 2, keepEvery: 300 }), [300]);
  });

  it("never deletes the newest verified one, whatever there is", () => {
    const health = fc.constantFrom<CheckpointHealth>("verified", "unknown", "damaged");
    const checkpoints = fc.uniqueArray(fc.record({ step: fc.nat(50), health }), { selector: ({ step }) => step });
    fc.assert(
      fc.property(checkpoints, fc.integer({ min: 0, max: 5 }), fc.nat(7), (stored, keepLast, keepEvery) => {
        const verified = stored.filter((checkpoint) => checkpoint.health === "verified").map(({ step }) => step);
        const deleted = superseded(stored, { keepLast, keepEvery });
        assert.ok(!deleted.includes(Math.max(...verified)));
        assert.equal(new Set(deleted).size, deleted.length);
      }),
    );
  });
});
