import assert from "node:assert/strict";
import { modelWidths, type ModelSpec } from "@segue/core";
import { trainingArenaFloats } from "../src/native/training-buffers.js";

const MODEL: ModelSpec = {
  ...{ layers: 2, dModel: 64, dState: 16, headDim: 16, expand: 2, dConv: 4, groups: 1, chunk: 32, vocab: 64, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};
const [LANES, TOKENS] = [4, 128] as const;

/** Floats of the arena that a further layer takes. */
const perLayer = (recomputes: { recomputes?: boolean; recomputesLayers?: boolean }): number => {
  const floats = (layers: number): number => trainingArenaFloats({ ...MODEL, layers }, LANES, TOKENS, 1, recomputes);
  return floats(3) - floats(2);
};

describe("buffers of a training step", () => {
  const { dInner, convDim, dInProj, heads } = modelWidths(MODEL);
  const rows = LANES * TOKENS;
  const states = LANES * dInner * MODEL.dState;
  const taps = LANES * (MODEL.dConv - 1) * convDim;
  const residual = rows * (MODEL.dModel + 2);

  it("keep a layer's projections, convolution, outputs and chunk states, unless they are computed again", () => {
    const chunks = TOKENS / MODEL.chunk;
    assert.equal(perLayer({}), residual + rows * (dInProj + convDim + heads + dInner) + taps + chunks * states);
    assert.equal(perLayer({ recomputes: true }), residual + rows * (dInProj + heads + dInner) + taps + states);
    assert.equal(perLayer({ recomputes: true, recomputesLayers: true }), residual + taps + states);
  });
});
