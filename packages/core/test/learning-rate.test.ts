import assert from "node:assert/strict";
import { fittedSchedule, learningRateAt, type ScheduleSpec } from "@segue/core";

const rate = (step: number, schedule: Partial<ScheduleSpec>, totalSteps = 100): number =>
  learningRateAt(
    step,
    totalSteps,
    { learningRate: 2 },
    { warmupSteps: 10, decaySteps: 20, decay: "linear", finalRatio: 0.5, revision: 2, ...schedule },
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

  it("decays so that the step after the last would have the final share", () => {
    near(rate(80, {}), 2 * (1 - 0.5 / 21));
    near(rate(99, {}), 2 * (1 - 0.5 * (20 / 21)));
    for (const decay of ["linear", "cosine", "exponential"] as const) near(rate(100, { decay }), 1);
    near(rate(99, { decaySteps: 0 }), 2);
    near(rate(99, { finalRatio: 0 }), 2 / 21);
  });

  it("follows the cosine and the exponential curve in between", () => {
    for (let step = 80; step < 100; step++) {
      const progress = (step - 79) / 21;
      near(rate(step, { decay: "cosine" }), 1 + 0.5 * (1 + Math.cos(Math.PI * progress)));
      near(rate(step, { decay: "exponential" }), 2 * 0.5 ** progress);
    }
  });

  it("leaves no step dead and lets every short job decay", () => {
    for (let steps = 1; steps <= 40; steps++) {
      const tenth = Math.ceil(steps / 10);
      const schedule = { warmupSteps: tenth, decaySteps: steps > 1 ? tenth : 0, finalRatio: 0 };
      const rates = Array.from({ length: steps }, (_, step) => rate(step, schedule, steps));
      assert.ok(
        rates.every((value) => value > 0),
        `${steps} steps: ${rates.join(" ")}`,
      );
      assert.equal(Math.max(...rates), 2);
      if (steps > 1) assert.ok((rates.at(-1) ?? 2) <= 1, `${steps} steps end at ${rates.at(-1)}`);
    }
  });

  it("shortens warm-up and decay in proportion where the documents end before both", () => {
    assert.deepEqual(fittedSchedule({ warmupSteps: 10, decaySteps: 20 }, 30), { warmupSteps: 10, decaySteps: 20 });
    assert.deepEqual(fittedSchedule({ warmupSteps: 10, decaySteps: 20 }, 15), { warmupSteps: 5, decaySteps: 10 });
    assert.deepEqual(fittedSchedule({ warmupSteps: 10, decaySteps: 20 }, 1), { warmupSteps: 0, decaySteps: 1 });
    near(rate(0, { finalRatio: 0 }, 15), 0.4);
    near(rate(14, { finalRatio: 0 }, 15), 2 / 11);
  });

  it("falls from a given rate on, by the curve, to the end", () => {
    const decayFrom = { step: 60, learningRate: 1.5 };
    near(rate(59, { decayFrom }), 2);
    near(rate(60, { decayFrom }), 1.5);
    near(rate(80, { decayFrom }), 1.25);
    for (const decay of ["linear", "cosine", "exponential"] as const) near(rate(100, { decayFrom, decay }), 1);
    near(rate(80, { decayFrom, decay: "exponential" }), 1.5 * (1 / 1.5) ** 0.5);
    near(rate(99, { decayFrom, finalRatio: 0 }), 1.5 / 40);
  });

  it("gives jobs of before their rates to the bit", () => {
    const former = (step: number): number => 2 * (1 - (1 - 0.3) * ((step + 1 - 80) / 20));
    for (let step = 80; step < 100; step++) assert.equal(rate(step, { revision: 1, finalRatio: 0.3 }), former(step));
    assert.equal(rate(99, { revision: 1, finalRatio: 0 }), 0);
  });
});
