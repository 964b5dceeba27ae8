import assert from "node:assert/strict";
import { learningRateAt, type ScheduleSpec } from "@segue/core";

const rate = (step: number, schedule: Partial<ScheduleSpec>): number =>
  learningRateAt(
    step,
    100,
    { learningRate: 2 },
    { warmupSteps: 10, decaySteps: 20, decay: "linear", finalRatio: 0.5, ...schedule },
  );
const near = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) < 1e-14, `${actual} is not ${expected}`);

describe("learningRateAt", () => {
  it("warms up to the full rate and holds it", () => {
    near(rate(0, {}), 0.2);
    near(rate(4, {}), 1);
    near(rate(9, {}), 2);
    near(rate(10, {}), 2);
    near(rate(79, {}), 2);
    near(rate(0, { warmupSteps: 0 }), 2);
  });

  it("decays to the final share at the last step", () => {
    near(rate(80, {}), 2 * (1 - 0.5 / 20));
    near(rate(89, {}), 1.5);
    for (const decay of ["linear", "cosine", "exponential"] as const) near(rate(99, { decay }), 1);
    near(rate(99, { decaySteps: 0 }), 2);
    near(rate(99, { finalRatio: 0 }), 0);
  });

  it("follows the cosine and the exponential curve in between", () => {
    for (let step = 80; step < 100; step++) {
      const progress = (step - 79) / 20;
      near(rate(step, { decay: "cosine" }), 1 + 0.5 * (1 + Math.cos(Math.PI * progress)));
      near(rate(step, { decay: "exponential" }), 2 * 0.5 ** progress);
    }
  });
});
