import assert from "node:assert/strict";
import {
  CAPACITY_LAWS,
  CAPACITY_POINTS,
  fitExponential,
  fitLine,
  MODEL_PRESETS,
  modelCapacity,
  resolveVocabulary,
  validateJobSpec,
  type ModelSpec,
} from "@segue/core";

function modelOf(model: object): ModelSpec {
  const input = { model: { vocab: 50_288, ...model }, data: { passkey: {} }, train: { steps: 1 } };
  return resolveVocabulary(validateJobSpec(input).spec, 256).model;
}

const near = (found: number, expected: number, share: number): void =>
  assert.ok(Math.abs(found / expected - 1) <= share, `${found} is not ${expected} to ${share}`);

describe("fitLine", () => {
  it("recovers the paper's first law from its points", () => {
    const fit = fitLine(CAPACITY_POINTS.forget);
    near(fit.slope, CAPACITY_LAWS.forget.slope, 0.005);
    near(fit.intercept, CAPACITY_LAWS.forget.intercept, 0.01);
    assert.equal(fit.rSquared.toFixed(3), "0.985", "not the paper's 0.999: two points are off by four");
    assert.deepEqual(
      fit.residuals.map((residual) => Math.abs(residual) > 4),
      [true, false, false, false, true, false],
    );
  });

  it("goes through points of a line exactly, and refuses a single x", () => {
    const fit = fitLine([0, 1, 5].map((x) => ({ x, y: 3 * x - 2 })));
    assert.deepEqual([fit.slope, fit.intercept, fit.rSquared], [3, -2, 1]);
    assert.throws(
      () =>
        fitLine([
          { x: 1, y: 1 },
          { x: 1, y: 2 },
        ]),
      RangeError,
    );
  });
});

describe("fitExponential", () => {
  it("recovers the paper's second law from its points", () => {
    const fit = fitExponential(CAPACITY_POINTS.recall);
    near(fit.base, CAPACITY_LAWS.recall.base, 0.001);
    near(fit.scale, CAPACITY_LAWS.recall.scale, 0.005);
    near(fit.offset, CAPACITY_LAWS.recall.offset, 0.02);
    assert.ok(fit.rSquared > 0.9999);
  });

  it("finds the constants of points that lie on such a curve", () => {
    for (const [base, scale, offset] of [
      [1.05, 40, 3],
      [2.5, 0.3, -1],
    ] as const) {
      const fit = fitExponential([0, 0.5, 1, 3, 4].map((x) => ({ x, y: scale * (base ** x - 1) + offset })));
      near(fit.base, base, 1e-6);
      near(fit.scale, scale, 1e-5);
      near(fit.offset, offset, 1e-5);
    }
    assert.throws(
      () =>
        fitExponential([
          { x: 0, y: 1 },
          { x: 1, y: 2 },
        ]),
      RangeError,
    );
  });
});

describe("modelCapacity", () => {
  it("has the paper's parameters and state sizes for its models", () => {
    const table = ["36m", "47m", "85m", "130m", "370m", "780m"].map((name) => {
      const { parameters, stateFloats } = modelCapacity(modelOf({ preset: `mamba2-${name}` }));
      return [parameters, (stateFloats / 1e6).toFixed(2)];
    });
    assert.deepEqual(table, [
      [36_068_640, "0.81"],
      [46_389_312, "1.62"],
      [83_805_792, "2.42"],
      [128_989_632, "4.85"],
      [368_346_624, "12.91"],
      [780_161_280, "19.35"],
    ]);
    assert.ok(Object.keys(MODEL_PRESETS).length >= table.length);
  });

  it("predicts the lengths of the paper's largest model that was followed to the end", () => {
    const { forgetTokens, recallTokens, warnings } = modelCapacity(modelOf({ preset: "mamba2-370m" }));
    near(forgetTokens! / 1024, 62.3, 0.01);
    near(recallTokens! / 1024, 256, 0.05);
    assert.deepEqual(warnings, []);
  });

  it("gives no length where the linear law is not positive, and says that it means nothing there", () => {
    const { forgetTokens, warnings } = modelCapacity(modelOf({ preset: "mamba2-36m" }));
    assert.equal(forgetTokens, null);
    assert.match(warnings[0]!, /means nothing under 0\.864M/);
    const toy = modelCapacity(modelOf({ layers: 2, dModel: 64, headDim: 16, dState: 16 }));
    assert.deepEqual([toy.forgetTokens, toy.recallTokens], [null, null]);
  });

  it("warns of extrapolation on either side", () => {
    assert.match(modelCapacity(modelOf({ preset: "mamba2-780m" })).warnings[0]!, /above 12\.9M.*not enough/);
    assert.match(modelCapacity(modelOf({ layers: 7, dModel: 512 })).warnings[0]!, /below 1\.08M/);
  });

  it("counts bytes of weights, of training and of a lane's state", () => {
    const { parameters, stateFloats, ...bytes } = modelCapacity(modelOf({ preset: "mamba2-130m" }));
    assert.deepEqual(
      [bytes.parameterBytes, bytes.trainingBytes, bytes.stateBytes],
      [4 * parameters, 16 * parameters, 4 * stateFloats],
    );
    assert.equal(bytes.ssmStateFloats + bytes.convStateFloats, stateFloats);
    assert.equal(bytes.ssmStateFloats, 4_718_592);
  });
});
