import assert from "node:assert/strict";
import type { ModelSpec } from "@segue/core";
import type { Engine } from "../src/engine.js";
import { createCpuEngine, createReferenceEngine } from "../src/native/index.js";
import { createTfjsEngine } from "../src/tfjs/tfjs-engine.js";
import { noise, noisyParameters, randomTokens } from "./native-support.js";

const MODEL: ModelSpec = {
  ...{ layers: 1, dModel: 12, dState: 5, headDim: 6, expand: 2, dConv: 4, groups: 1, chunk: 8, vocab: 17, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};

const ENGINES: Readonly<Record<string, () => Promise<Engine>>> = {
  reference: async () => createReferenceEngine(MODEL),
  cpu: () => createCpuEngine({ model: MODEL, precision: "f32", threads: 1 }),
  tfjs: () => createTfjsEngine({ model: MODEL, precision: "f32", threads: 1 }, ["wasm"]),
};

for (const [name, open] of Object.entries(ENGINES)) {
  describe(`parameters and moments in parts: ${name}`, () => {
    let engine: Engine;
    before(async () => (engine = await open()));
    after(() => engine.close());

    const parts = function* (size: number, length: number): Generator<[begin: number, end: number]> {
      for (let begin = 0; begin < size; begin += length) yield [begin, Math.min(size, begin + length)];
    };

    it("are written and read the same as whole", () => {
      const { size } = engine.layout;
      const [weights, first, second] = [noisyParameters(MODEL), noise("first", size), noise("second", size).map(Math.abs)];
      const tokens_BT = randomTokens("parts", 9, MODEL.vocab);
      const batch = { lanes: 1, tokens: 9, tokens_BT, labels_BT: tokens_BT };
      const score = (): Float32Array => engine.score(batch, engine.createStates(1)).slice();
      engine.writeParameters(weights);
      const expected = score();
      engine.writeParameters(new Float32Array(size));
      assert.notDeepEqual(score(), expected);
      for (const [begin, end] of parts(size, 97)) {
        engine.writeParameters(weights.slice(begin, end), begin);
        engine.writeMoments(first.slice(begin, end), second.slice(begin, end), begin);
      }
      assert.deepEqual(score(), expected);
      const whole = [0, 1, 2].map(() => new Float32Array(size)) as [Float32Array, Float32Array, Float32Array];
      engine.readParameters(whole[0]);
      engine.readMoments(whole[1], whole[2]);
      assert.deepEqual(whole, [weights, first, second]);
      const joined = [0, 1, 2].map(() => new Float32Array(size)) as typeof whole;
      for (const [begin, end] of parts(size, 101)) {
        const [w, f, s] = joined.map((vector) => vector.subarray(begin, end)) as typeof whole;
        engine.readParameters(w, begin);
        engine.readMoments(f, s, begin);
      }
      assert.deepEqual(joined, whole);
    });

    it("are refused where they lie beyond the end or a whole vector is expected", () => {
      const { size } = engine.layout;
      const invalid = { code: "ENGINE_INPUT_INVALID" };
      const three = new Float32Array(3);
      assert.throws(() => engine.writeParameters(three), invalid);
      assert.throws(() => engine.writeParameters(three, size - 2), invalid);
      assert.throws(() => engine.readParameters(three, size - 2), invalid);
      assert.throws(() => engine.writeMoments(three, three), invalid);
      assert.throws(() => engine.writeMoments(three, three, -1), invalid);
      assert.throws(() => engine.readMoments(three, three, size), invalid);
      assert.throws(() => engine.readMoments(three, new Float32Array(4), size - 3), invalid);
    });
  });
}
