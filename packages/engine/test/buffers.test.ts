import assert from "node:assert/strict";
import { modelWidths, type ModelSpec } from "@segue/core";
import { trainingArenaFloats } from "../src/native/training-buffers.js";

const MODEL: ModelSpec = {
  ...{ layers: 2, dModel: 64, dState: 16, headDim: 16, expand: 2, dConv: 4, groups: 1, chunk: 32, vocab: 64, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};
const [LANES, TOKENS, KEPT] = [4, 128, 1600] as const;

/** Floats of the arena that a further layer takes. */
const perLayer = (economiesOf?: (layers: number) => number): number => {
  const floats = (layers: number): number =>
    trainingArenaFloats(
      { ...MODEL, layers },
      LANES,
      TOKENS,
      1,
      economiesOf && { economies: economiesOf(layers), keptStateFloats: () => KEPT },
    );
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
    const forLayers = rows * (dInProj + heads + dInner);
    const forConvolution = rows * convDim;
    assert.equal(perLayer(), residual + forLayers + forConvolution + taps + chunks * states);
    const everything = perLayer(() => 0);
    assert.equal(everything, residual + forLayers + forConvolution + KEPT + taps + states);
    // Where one of several layers computes again, memory is shared by one: nothing is gained yet.
    assert.equal(
      perLayer(() => 2),
      everything,
    );
    assert.equal(
      perLayer((layers) => layers),
      everything - forConvolution - KEPT,
    );
    assert.equal(
      perLayer((layers) => layers + 1),
      everything - forConvolution - KEPT,
    );
    assert.equal(
      perLayer((layers) => 2 * layers),
      residual + taps + states,
    );
    assert.equal(
      perLayer(() => Infinity),
      residual + taps + states,
    );
  });
});
