import assert from "node:assert/strict";
import { validateJobSpec, type CommittedStep, type JobSpec } from "@segue/core";
import { planReplay } from "../src/replay/plan.js";

const { spec } = validateJobSpec({ model: { layers: 1, dModel: 64 }, data: { passkey: {} }, train: { steps: 100 } });
const edited: JobSpec = { ...spec, optimizer: { ...spec.optimizer, learningRate: 1e-4 } };
const STEPS = [4, 10, 17, 20, 26, 30];
const commit = (step: number, inForce = spec): CommittedStep => {
  return { firstStep: STEPS[STEPS.indexOf(step) - 1] ?? 0, step, weightsDigest: `w${step}`, spec: inForce };
};
const commits = STEPS.map((step) => commit(step));

describe("the range of a replay", () => {
  const range = (request: { from?: number; to?: number }, checkpoints = [10, 20]) => {
    const planned = planReplay({ commits, checkpoints, ...request });
    return [planned.start, planned.end, planned.commits.map(({ step }) => step)];
  };

  it("starts at the last checkpoint before what is asked for, or at the beginning", () => {
    assert.deepEqual(range({}), [20, 30, [26, 30]]);
    assert.deepEqual(range({ from: 12, to: 21 }), [10, 20, [17, 20]]);
    assert.deepEqual(range({ from: 1 }), [0, 30, [4, 10, 17, 20, 26, 30]]);
    assert.deepEqual(range({ to: 20 }), [10, 20, [17, 20]]);
    assert.deepEqual(range({}, []), [0, 30, [4, 10, 17, 20, 26, 30]]);
  });

  it("computes every step under the spec that was in force", () => {
    const changed = [...commits.slice(0, 4), commit(26, edited), commit(30, edited)];
    assert.deepEqual(planReplay({ commits: changed, checkpoints: [10], from: 12 }).sections, [
      { start: 10, end: 20, spec },
      { start: 20, end: 30, spec: edited },
    ]);
    assert.deepEqual(planReplay({ commits: changed, checkpoints: [20], from: 26 }).sections, [
      { start: 20, end: 30, spec: edited },
    ]);
  });

  it("refuses steps that are not recorded, and an edit at a step that is not", () => {
    assert.throws(() => range({ from: 31 }), { code: "REPLAY_RANGE_INVALID" });
    const gap = [...commits.slice(0, 3), commit(26, edited), commit(30, edited)];
    assert.throws(() => planReplay({ commits: gap, checkpoints: [10], from: 12 }), /between the steps 17 and 20.*--to 17/);
  });
});
