import assert from "node:assert/strict";
import { drawInitialState, laneStateFloats, randomStream, type InitialStateRule, type ModelSpec } from "@segue/core";
import { createEngine, initialParameters, type Engine, type TrainingPart } from "@segue/engine";
import { withInitialStates } from "../src/compute/initial-states.js";

const MODEL: ModelSpec = {
  ...{ layers: 2, dModel: 16, dState: 8, headDim: 8, expand: 2, dConv: 4, groups: 1, chunk: 16, vocab: 32, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};
const [LANES, TOKENS, FIRST_LANE] = [3, 12, 6] as const;
const FLOATS = laneStateFloats(MODEL);
const RULE: InitialStateRule = { kind: "fittedNoise", std: 0.1, seed: 4, step: 9 };

/** A part whose lane 1 drops its state before the first token and whose lane 2 does so inside, on states that have seen something. */
function partOf(engine: Engine): TrainingPart {
  const random = randomStream(1, "part");
  const ids = Int32Array.from({ length: LANES * TOKENS }, () => random.below(MODEL.vocab));
  const states = engine.createStates(LANES);
  engine.writeStates(
    states,
    Float32Array.from({ length: LANES * FLOATS }, () => random.normal()),
  );
  const resets_BT = new Uint8Array(LANES * TOKENS);
  resets_BT[TOKENS] = 1;
  resets_BT[2 * TOKENS + 5] = 1;
  return { states, batch: { lanes: LANES, tokens: TOKENS, tokens_BT: ids, labels_BT: ids, resets_BT } };
}

function statesOf(engine: Engine, { states }: TrainingPart): Float32Array {
  const values = new Float32Array(LANES * FLOATS);
  engine.readStates(states, values);
  return values;
}

describe("withInitialStates", () => {
  for (const name of ["cpu", "tfjs"] as const) {
    it(`${name}: replaces the states that are dropped before the first token, and no others`, async () => {
      const engine = await createEngine(name, { model: MODEL, precision: "f32", threads: 1 });
      try {
        const part = partOf(engine);
        const expected = statesOf(engine, part);
        drawInitialState(MODEL, RULE, FIRST_LANE + 1, expected.subarray(FLOATS, 2 * FLOATS));
        const started = withInitialStates(engine, part, RULE, FIRST_LANE);
        assert.deepEqual(statesOf(engine, started), expected);
        assert.deepEqual(
          Array.from(started.batch.resets_BT ?? []).flatMap((reset, at) => (reset ? [at] : [])),
          [2 * TOKENS + 5],
        );
      } finally {
        engine.close();
      }
    });
  }

  it("is what the step then starts from", async () => {
    const engine = await createEngine("cpu", { model: MODEL, precision: "f32", threads: 1 });
    try {
      engine.writeParameters(initialParameters(MODEL, 3));
      const gradientFrom = (part: TrainingPart): [number, Float32Array] => {
        const gradient = new Float32Array(engine.layout.size);
        return [engine.forwardBackward(part.batch, part.states, gradient), gradient];
      };
      const noise = gradientFrom(withInitialStates(engine, partOf(engine), RULE, FIRST_LANE));
      assert.notDeepEqual(noise, gradientFrom(partOf(engine)));
      // Fitted to zeros it is zero, which is what the engine's own reset gives.
      const fromZero = (): TrainingPart => {
        const part = partOf(engine);
        engine.zeroStates(part.states, "ssm");
        return part;
      };
      const [fitted, reset] = [gradientFrom(withInitialStates(engine, fromZero(), RULE, FIRST_LANE)), gradientFrom(fromZero())];
      assert.ok(Math.abs(fitted[0] - reset[0]) < 1e-5 * reset[0], `${fitted[0]} ${reset[0]}`);
      fitted[1].forEach((value, i) => assert.ok(Math.abs(value - reset[1][i]!) < 1e-5, `${i}: ${value} ${reset[1][i]}`));
    } finally {
      engine.close();
    }
  });

  it("leaves a part alone in which nothing is dropped before the first token", async () => {
    const engine = await createEngine("cpu", { model: MODEL, precision: "f32", threads: 1 });
    try {
      const part = partOf(engine);
      part.batch.resets_BT![TOKENS] = 0;
      assert.equal(withInitialStates(engine, part, RULE, FIRST_LANE), part);
    } finally {
      engine.close();
    }
  });
});
