import assert from "node:assert/strict";
import {
  drawInitialState,
  headStatistics,
  laneStateFloats,
  ssmStateFloats,
  validateJobSpec,
  type InitialStateRule,
} from "@segue/core";

const { model } = validateJobSpec({
  model: { layers: 2, dModel: 64, headDim: 64, dState: 128 },
  data: { passkey: {} },
  train: { steps: 1 },
}).spec;
const NOISE: InitialStateRule = { kind: "noise", std: 0.25, seed: 3, step: 7 };
const FITTED: InitialStateRule = { ...NOISE, kind: "fittedNoise" };

/** A state whose heads all differ in mean and spread; the convolution taps are 9. */
function droppedState(): Float32Array {
  const size = model.headDim * model.dState;
  const ssmFloats = ssmStateFloats(model);
  return Float32Array.from({ length: laneStateFloats(model) }, (_, i) => {
    const head = Math.floor(i / size) + 1;
    return i < ssmFloats ? head + (i % 2 === 0 ? head / 10 : -head / 10) : 9;
  });
}

function drawn(rule: InitialStateRule, lane: number, state = droppedState()): Float32Array {
  drawInitialState(model, rule, lane, state);
  return state;
}

describe("drawInitialState", () => {
  it("draws noise of one spread for all heads, and zeroes the convolution", () => {
    const state = drawn(NOISE, 0);
    for (const { mean, variance, largest } of headStatistics(model, state)) {
      assert.ok(Math.abs(mean) < 0.02, `mean ${mean}`);
      assert.ok(Math.abs(Math.sqrt(variance) / 0.25 - 1) < 0.05, `variance ${variance}`);
      assert.ok(largest > 0.7 && largest < 1.1, `largest ${largest}`);
    }
    assert.ok(state.subarray(ssmStateFloats(model)).every((tap) => tap === 0));
  });

  it("draws fitted noise like the state that is dropped, head by head, and leaves zero what was zero", () => {
    const before = headStatistics(model, droppedState());
    headStatistics(model, drawn(FITTED, 0)).forEach(({ mean, variance }, index) => {
      const expected = before[index]!;
      assert.ok(Math.abs(mean / expected.mean - 1) < 0.01, `mean ${mean}, expected ${expected.mean}`);
      assert.ok(Math.abs(variance / expected.variance - 1) < 0.1, `variance ${variance}, expected ${expected.variance}`);
    });
    assert.ok(drawn(FITTED, 0, new Float32Array(laneStateFloats(model))).every((value) => value === 0));
  });

  it("is a function of seed, lane and step, each of which changes it", () => {
    assert.deepEqual(drawn(NOISE, 4), drawn(NOISE, 4));
    const variants = [drawn(NOISE, 4), drawn(NOISE, 5), drawn({ ...NOISE, seed: 4 }, 4), drawn({ ...NOISE, step: 8 }, 4)];
    assert.equal(new Set(variants.map((state) => String(state.subarray(0, 8)))).size, 4);
    // What a dropped state was does not matter to noise.
    assert.deepEqual(drawn(NOISE, 4, new Float32Array(laneStateFloats(model))), drawn(NOISE, 4));
  });

  it("gives the same numbers for ever", () => {
    const known = Array.from(drawn(NOISE, 4).subarray(0, 4));
    assert.deepEqual(known, [-0.26177453994750977, 0.05411576107144356, -0.01656894013285637, -0.1560671180486679]);
  });
});
