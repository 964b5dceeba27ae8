import assert from "node:assert/strict";
import { laneStateFloats, MODEL_PRESETS, parameterLayout, validateJobSpec } from "@segue/core";
import { modelWidths } from "../src/model/sizes.js";

describe("model sizes", () => {
  it("gives the published parameter count of 130M", () => {
    const model = {
      layers: 24,
      dModel: 768,
      dState: 128,
      headDim: 64,
      expand: 2,
      dConv: 4,
      groups: 1,
      chunk: 256,
      vocab: 50288,
      padVocabMultiple: 16,
      tieEmbeddings: true,
      rmsEps: 1e-5,
    };
    assert.equal(parameterLayout(model).size, 128_989_632);
    assert.equal(modelWidths(model).dInProj, 3352);
  });

  it("gives the published parameter count and state size of every preset, with GPT-NeoX's vocabulary", () => {
    const published: Record<string, [parameters: number, stateFloats: number]> = {
      "mamba2-36m": [36_068_640, 786_432 + 23_040],
      "mamba2-47m": [46_389_312, 1_572_864 + 46_080],
      "mamba2-85m": [83_805_792, 2_359_296 + 64_512],
      "mamba2-130m": [128_989_632, 4_718_592 + 129_024],
      "mamba2-370m": [368_346_624, 12_582_912 + 331_776],
      "mamba2-780m": [780_161_280, 18_874_368 + 479_232],
      "mamba2-1.3b": [1_343_757_312, 48 * (64 * 64 * 128 + 3 * 4352)],
      "mamba2-2.7b": [2_702_599_680, 64 * (80 * 64 * 128 + 3 * 5376)],
    };
    assert.deepEqual(Object.keys(MODEL_PRESETS), Object.keys(published));
    for (const [preset, sizes] of Object.entries(published)) {
      const { model } = validateJobSpec({ model: { preset, vocab: 50_288 }, data: { passkey: {} }, train: { steps: 1 } }).spec;
      assert.deepEqual([parameterLayout(model).size, laneStateFloats(model)], sizes, preset);
    }
  });
});
