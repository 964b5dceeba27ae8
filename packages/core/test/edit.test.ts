import assert from "node:assert/strict";
import { editJobSpec, learningRateAt, validateJobSpec, type JobSpec } from "@segue/core";

const { spec } = validateJobSpec({
  model: { layers: 1, dModel: 64, headDim: 32, dState: 16 },
  data: { passkey: { documentTokens: 4096 } },
  optimizer: { learningRate: 0.001 },
  schedule: { warmupSteps: 10, decaySteps: 50 },
  train: { steps: 100 },
});
const rate = ({ train, optimizer, schedule }: JobSpec, step: number): number =>
  learningRateAt(step, train.steps, optimizer, schedule);

describe("an edit in mid-decay", () => {
  it("says that the rate jumps", () => {
    const up = editJobSpec(spec, { "train.steps": "200" }, 80);
    assert.equal(rate(up.spec, 80), 0.001);
    assert.match(
      up.warnings.join(),
      /learning rate of step 80 becomes 0.001, where it would have been 0.000392.*--decay-from-here/,
    );
    const down = editJobSpec(spec, { "train.steps": "81" }, 80);
    assert.match(down.warnings.join(), /becomes 0.0000196.*|becomes 0.000019/);
  });

  it("says nothing where the rate stays or is what was changed", () => {
    assert.deepEqual(editJobSpec(spec, { "train.steps": "200" }, 20).warnings, []);
    assert.deepEqual(editJobSpec(spec, { "optimizer.learningRate": "0.0005" }, 80).warnings, []);
  });

  it("lets it fall from where it is", () => {
    const edited = editJobSpec(spec, { "train.steps": "200", "schedule.decayFrom": "here" }, 80);
    const before = rate(spec, 80);
    assert.deepEqual(edited.warnings, []);
    assert.deepEqual(edited.spec.schedule.decayFrom, { step: 80, learningRate: before });
    assert.deepEqual(edited.changes["schedule.decayFrom"], { from: undefined, to: { step: 80, learningRate: before } });
    const rates = Array.from({ length: 120 }, (_, at) => rate(edited.spec, 80 + at));
    assert.equal(rates[0], before);
    assert.ok(rates.every((value, at) => value > 0 && (at === 0 || value < (rates[at - 1] ?? 0))));
    assert.equal(rate(edited.spec, 79), learningRateAt(79, 200, spec.optimizer, spec.schedule));
    // What an edit made is a spec like any other.
    assert.deepEqual(validateJobSpec(edited.spec).spec, edited.spec);
  });

  it("counts the steps that the documents give", () => {
    const edited = editJobSpec(spec, { "train.steps": "300" }, 80, 100);
    assert.deepEqual(edited.warnings, []);
  });

  it("refuses a decay from beyond the end, and one without an end", () => {
    const beyond = { "schedule.decayFrom": "{ step: 100, learningRate: 0.1 }" };
    assert.throws(() => editJobSpec(spec, beyond, 80), /decayFrom.step: must be below the job's 100 steps/);
    const endless = { "schedule.decay": "exponential", "schedule.decayFrom": "here" };
    assert.throws(() => editJobSpec(spec, endless, 80), /finalRatio: must be above 0/);
  });
});
