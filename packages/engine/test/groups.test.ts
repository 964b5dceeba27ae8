import assert from "node:assert/strict";
import { laneStateFloats, type ModelSpec } from "@segue/core";
import type { Engine, SegmentBatch } from "../src/engine.js";
import { createCpuEngine, createReferenceEngine } from "../src/native/index.js";
import { createTfjsEngine } from "../src/tfjs/tfjs-engine.js";
import { someResets } from "./devices-support.js";
import { noisyParameters, randomTokens, relativeError, worstTensor } from "./native-support.js";

const rest = { layers: 2, expand: 2, dConv: 4, chunk: 24, padVocabMultiple: 1, rmsEps: 1e-5 };

/** Groups of several heads and of one, of widths that fill vectors and of such that do not. */
const MODELS: Record<string, ModelSpec> = {
  "three groups of one head, 14 columns each": {
    ...rest,
    dModel: 21,
    dState: 5,
    headDim: 14,
    groups: 3,
    vocab: 31,
    tieEmbeddings: true,
  },
  "four groups of three heads, 15 columns each": {
    ...rest,
    dModel: 30,
    dState: 7,
    headDim: 5,
    groups: 4,
    vocab: 19,
    tieEmbeddings: false,
  },
  "eight groups of two heads, 16 columns each": {
    ...rest,
    dModel: 64,
    dState: 16,
    headDim: 8,
    groups: 8,
    vocab: 40,
    tieEmbeddings: true,
  },
};

const [LANES, TOKENS] = [2, 61];

function batchOf(model: ModelSpec, label: string): SegmentBatch {
  const rows = LANES * TOKENS;
  return {
    ...{ lanes: LANES, tokens: TOKENS },
    tokens_BT: randomTokens(`${label} tokens`, rows, model.vocab),
    labels_BT: randomTokens(`${label} labels`, rows, model.vocab),
    weights_BT: Float32Array.from({ length: rows }, (_, r) => (r % 5) / 2),
    resets_BT: Uint8Array.from(someResets(label, rows, 25)),
  };
}

/** Two segments, the second through segments of its own; everything that comes out of them. */
function results(engine: Engine): Record<"losses" | "gradient" | "states" | "logits", Float32Array> {
  const { model } = engine;
  engine.writeParameters(noisyParameters(model));
  const lanes = engine.createStates(LANES);
  const losses = engine.score(batchOf(model, "first"), lanes);
  const gradient = new Float32Array(engine.layout.size).fill(NaN);
  const rules = { segmentTokens: 23, gradient: "full", carrySsm: true, carryConv: true } as const;
  engine.forwardBackward(batchOf(model, "second"), lanes, gradient, rules);
  const states = new Float32Array(LANES * laneStateFloats(model));
  engine.readStates(lanes, states);
  return { losses, gradient, states, logits: engine.prefill(batchOf(model, "third"), lanes) };
}

describe("several groups of B and C, normed group by group", () => {
  for (const [name, model] of Object.entries(MODELS)) {
    const engines: Record<string, () => Promise<Engine>> = {
      cpu: () => createCpuEngine({ model, precision: "f32", threads: 2 }),
      tfjs: () => createTfjsEngine({ model, precision: "f32", threads: 1 }, ["wasm"]),
    };
    for (const [engineName, create] of Object.entries(engines)) {
      it(`are on ${engineName} what they are on the reference device: ${name}`, async () => {
        const engine = await create();
        const [found, expected] = [results(engine), results(createReferenceEngine(model))];
        for (const quantity of ["losses", "states", "logits"] as const) {
          const error = relativeError(found[quantity], expected[quantity]);
          assert.ok(error < 1e-5, `${quantity} are off by ${error}`);
        }
        const worst = worstTensor(model, found.gradient, expected.gradient);
        assert.ok(worst.error < 1e-4, `${worst.name} is off by ${worst.error}`);
        engine.close();
      });
    }
  }

  it("do not look at one another: a gate that closes one group leaves the other's norm alone", () => {
    const model = MODELS["three groups of one head, 14 columns each"]!;
    const engine = createReferenceEngine(model);
    const logitsWith = (scale: number): Float32Array => {
      const parameters = noisyParameters(model);
      // All rows of the second group's gate in the last layer, and its columns of the output projection, which hide it.
      for (const { name, offset, shape } of engine.layout.entries) {
        const [rows, columns] = [shape[0]!, shape[1] ?? 1];
        for (let at = 0; at < rows * columns; at++) {
          const [row, column] = [Math.floor(at / columns), at % columns];
          if (name === "backbone.layers.1.mixer.in_proj.weight" && row >= 14 && row < 28) parameters[offset + at]! *= scale;
          if (name === "backbone.layers.1.mixer.out_proj.weight" && column >= 14 && column < 28) parameters[offset + at] = 0;
        }
      }
      engine.writeParameters(parameters);
      return engine.prefill(batchOf(model, "gates"), engine.createStates(LANES));
    };
    assert.ok(relativeError(logitsWith(3), logitsWith(1)) < 1e-12);
  });
});
