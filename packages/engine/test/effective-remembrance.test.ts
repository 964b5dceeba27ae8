import assert from "node:assert/strict";
import { totalVariation, type ModelSpec } from "@segue/core";
import { effectiveRemembrance, remembranceTokens } from "../src/effective-remembrance.js";
import type { Engine } from "../src/engine.js";
import { createReferenceEngine } from "../src/native/index.js";
import { noisyParameters, randomTokens } from "./native-support.js";

const MODEL: ModelSpec = {
  ...{ layers: 2, dModel: 24, dState: 8, headDim: 6, expand: 2, dConv: 4, groups: 1, chunk: 8, vocab: 31, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};
const LANES = 3;
const TOKENS = 70;
const TEXT = randomTokens("remembered", LANES * TOKENS, MODEL.vocab);
const read = (lane: number, from: number, count: number): Int32Array =>
  TEXT.subarray(lane * TOKENS + from, lane * TOKENS + from + count);

describe("effectiveRemembrance", () => {
  let engine: Engine;
  const parameters = noisyParameters(MODEL);
  const remember = (starts: number[], segmentTokens = 16): number[][] =>
    effectiveRemembrance(engine, LANES, read, { tokens: TOKENS, starts, segmentTokens });
  before(() => (engine = createReferenceEngine(MODEL)));
  beforeEach(() => engine.writeParameters(parameters));
  after(() => engine.close());

  it("is the distance between the predictions after the whole context and after its end, lane by lane", () => {
    const predict = (lane: number, start: number): Float32Array => {
      const states = engine.createStates(1);
      const batch = { lanes: 1, tokens: TOKENS - start, tokens_BT: read(lane, start, TOKENS - start) };
      const logits_V = engine.prefill(batch, states).slice();
      engine.freeStates(states);
      return logits_V;
    };
    const starts = [66, 68, 69];
    remember(starts).forEach((found_B, index) =>
      found_B.forEach((found, lane) => {
        const expected = totalVariation(predict(lane, 0), predict(lane, starts[index]!));
        assert.ok(expected > 1e-4 && expected < 1, "a distance to tell from nothing");
        assert.ok(Math.abs(found - expected) < 1e-6, `${starts[index]} ${lane}: ${found}, not ${expected}`);
      }),
    );
  });

  it("is exactly zero from the beginning, and the same however the context is cut", () => {
    assert.deepEqual(remember([0]), [[0, 0, 0]]);
    const [a, b] = [remember([20, 50], 7).flat(), remember([20, 50], 1000).flat()];
    a.forEach((value, index) => assert.ok(Math.abs(value - b[index]!) < 1e-6));
  });

  it("is zero everywhere for a model that forgets at once", () => {
    const forgetful = parameters.slice();
    for (const { name, offset, size } of engine.layout.entries) {
      if (name.endsWith("A_log")) forgetful.fill(40, offset, offset + size);
      // Of the taps only the token's own.
      if (name.endsWith("conv1d.weight"))
        for (let at = offset; at < offset + size; at++) if ((at - offset) % 4 !== 3) forgetful[at] = 0;
    }
    engine.writeParameters(forgetful);
    for (const distance of remember([1, 35, 69]).flat()) assert.ok(distance < 1e-9);
  });

  it("tells how far it is, and refuses a start that leaves nothing", () => {
    const progress: number[] = [];
    const options = { tokens: TOKENS, starts: [0, 50], segmentTokens: 40 };
    effectiveRemembrance(engine, LANES, read, options, (done) => progress.push(done));
    assert.deepEqual(progress, [120, 210, 270]);
    assert.equal(remembranceTokens(options) * LANES, 270);
    assert.throws(() => remember([TOKENS]), RangeError);
  });
});
