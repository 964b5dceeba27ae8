import assert from "node:assert/strict";
import { parameterLayout } from "@segue/core";
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
});
