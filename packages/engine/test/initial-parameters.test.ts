import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { pagedFloats, parameterLayout, stretches, type ModelSpec } from "@segue/core";
import { drawParameters, initialParameters } from "../src/initial-parameters.js";

const MODEL: ModelSpec = {
  layers: 4,
  dModel: 64,
  dState: 16,
  headDim: 2,
  expand: 2,
  dConv: 4,
  groups: 1,
  chunk: 16,
  vocab: 256,
  padVocabMultiple: 16,
  tieEmbeddings: false,
  rmsEps: 1e-5,
};

describe("initialParameters", () => {
  const flat = initialParameters(MODEL, 7);
  const values = (name: string): Float32Array => {
    const entry = parameterLayout(MODEL).entries.find((each) => each.name === name)!;
    return flat.subarray(entry.offset, entry.offset + entry.size);
  };
  const mixer = (name: string): Float32Array => values(`backbone.layers.1.mixer.${name}`);
  const deviation = (of: Float32Array): number => Math.sqrt(of.reduce((sum, value) => sum + value * value, 0) / of.length);

  it("draws linear and convolution weights uniformly within one over the root of their inputs", () => {
    for (const [tensor, bound] of [
      [mixer("in_proj.weight"), 1 / 8],
      [mixer("conv1d.weight"), 1 / 2],
      [mixer("conv1d.bias"), 1 / 2],
      // Scaled down once more by the root of the number of layers.
      [mixer("out_proj.weight"), 1 / Math.sqrt(128) / 2],
      [values("lm_head.weight"), 1 / 8],
    ] as const) {
      const largest = Math.max(...tensor.map(Math.abs));
      assert.ok(largest <= bound && largest > 0.95 * bound, `${largest}, bound ${bound}`);
      const ratio = deviation(tensor) / (bound / Math.sqrt(3));
      assert.ok(ratio > 0.9 && ratio < 1.1, `deviation off by a factor of ${ratio}`);
    }
  });

  it("draws the embedding normally with deviation 0.02", () => {
    const embedding = values("backbone.embeddings.weight");
    assert.ok(Math.abs(deviation(embedding) - 0.02) < 0.0005);
    assert.ok(Math.max(...embedding) > 0.06);
  });

  it("draws steps between 0.001 and 0.1, decays between 1 and 16, and leaves the rest at one", () => {
    const steps = mixer("dt_bias").map((bias) => Math.log1p(Math.exp(bias)));
    assert.ok(Math.min(...steps) >= 0.000999 && Math.max(...steps) <= 0.1001);
    // Log-uniform: about half of them below the geometric mean.
    const below = steps.filter((dt) => dt < 0.01).length / steps.length;
    assert.ok(below > 0.3 && below < 0.7, `${below} below 0.01`);
    const decays = mixer("A_log").map(Math.exp);
    assert.ok(Math.min(...decays) >= 0.9999 && Math.max(...decays) <= 16.001 && Math.max(...decays) > 12);
    for (const ones of [mixer("D"), mixer("norm.weight"), values("backbone.norm_f.weight")]) {
      assert.ok(ones.every((value) => value === 1));
    }
  });

  it("depends on nothing but model and seed", () => {
    const hash = createHash("sha256").update(new Uint8Array(flat.buffer)).digest("hex");
    assert.equal(hash, "352244e9069fb02562c02f71561732d01195c39d7fef9a5d013f8a5f9fd3f0ba");
    assert.notDeepEqual(initialParameters(MODEL, 8), flat);
  });

  it("is the same however it is cut into pages", () => {
    for (const pageFloats of [1009, flat.length - 1]) {
      const paged = pagedFloats(flat.length, pageFloats);
      drawParameters(MODEL, 7, paged);
      for (const { offset, floats } of stretches(paged)) assert.deepEqual(floats, flat.subarray(offset, offset + floats.length));
    }
  });
});
