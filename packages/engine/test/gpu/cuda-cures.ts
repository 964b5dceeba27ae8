import assert from "node:assert/strict";
import { convStateFloats, laneStateFloats, type CureSpec, type ModelSpec } from "@segue/core";
import { curedEngine } from "../../src/cures/cured-engine.js";
import type { InferenceEngine } from "../../src/cures/state-rule.js";
import { openCudaDevice } from "../../src/cuda/cuda-device.js";
import type { Engine, LaneStates, SegmentBatch } from "../../src/engine.js";
import { DeviceEngine } from "../../src/native/device-engine.js";
import { createReferenceEngine } from "../../src/native/index.js";
import { newLayerMoments } from "../../src/native/moments.js";
import { segmentOf } from "../../src/segments.js";
import { noisyParameters, randomTokens, relativeError } from "../native-support.js";
import { MODELS } from "./models.js";

const [LANES, TOKENS, EVERY] = [2, 320, 64] as const;
/** Relative errors, in L2. */
const LIMITS = { f32: 1e-3, bf16: 2e-2 } as const;

const NEUTRAL: readonly CureSpec[] = [
  { kind: "reduced", retention: 1, insertion: 1 },
  { kind: "longMamba", dtScale: 1 },
  { kind: "normalised", multiplier: 1e9, referenceTokens: 100, everyTokens: EVERY },
  { kind: "window", tokens: 2 * TOKENS, everyTokens: EVERY },
];
const CURES: readonly CureSpec[] = [
  { kind: "reduced", retention: 0.97, insertion: 0.75 },
  { kind: "longMamba", dtScale: 0.5 },
  { kind: "normalised", multiplier: 0.5, referenceTokens: 100, everyTokens: EVERY },
  { kind: "window", tokens: 2 * EVERY, everyTokens: EVERY },
];

const batchOf = ({ vocab }: ModelSpec): SegmentBatch => ({
  ...{ lanes: LANES, tokens: TOKENS },
  tokens_BT: randomTokens("tokens", LANES * TOKENS, vocab),
  labels_BT: randomTokens("labels", LANES * TOKENS, vocab),
});

/** Retention is such that what lies a window back still counts. */
function withParameters(engine: Engine): Engine {
  const parameters = noisyParameters(engine.model);
  for (const { name, offset, size } of engine.layout.entries) {
    if (name.endsWith("A_log")) for (let i = offset; i < offset + size; i++) parameters[i]! -= 5;
  }
  engine.writeParameters(parameters);
  return engine;
}

/** Losses of the text in calls of {@link EVERY} tokens, then logits of one more token. */
function run(of: InferenceEngine): { losses: Float32Array[]; logits: Float32Array } {
  const states = of.createStates(LANES);
  const batch = batchOf(of.model);
  const starts = Array.from({ length: TOKENS / EVERY }, (_, i) => i * EVERY);
  const losses = starts.map((start) => of.score(segmentOf(batch, start, EVERY), states).slice());
  const logits = of.prefill({ lanes: LANES, tokens: 1, tokens_BT: Int32Array.of(1, 2) }, states).slice();
  of.freeStates(states);
  return { losses, logits };
}

const joined = (parts: readonly Float32Array[]): Float32Array => Float32Array.from(parts.flatMap((part) => [...part]));

for (const precision of ["f32", "bf16"] as const) {
  for (const [name, model] of Object.entries(MODELS)) {
    describe(`cures on a GPU (${precision}, the ${name} model)`, () => {
      const limit = LIMITS[precision];
      const text = randomTokens("reference", 100, model.vocab);
      const reference = (at: number, count: number): Int32Array => text.subarray(at, at + count);
      let engine: Engine;
      before(() => (engine = withParameters(new DeviceEngine("cuda", openCudaDevice(precision), model))));
      after(() => engine.close());

      for (const cure of NEUTRAL) {
        it(`change nothing, to the bit, where they are neutral: ${JSON.stringify(cure)}`, () => {
          assert.deepEqual(run(curedEngine(engine, cure, reference)), run(engine));
        });
      }

      for (const cure of CURES) {
        it(`agree with the reference device: ${JSON.stringify(cure)}`, () => {
          const wide = withParameters(createReferenceEngine(model));
          const [found, expected] = [engine, wide].map((of) => run(curedEngine(of, cure, reference)));
          const error = {
            losses: relativeError(joined(found!.losses), joined(expected!.losses)),
            logits: relativeError(found!.logits, expected!.logits),
          };
          assert.ok(error.losses < limit && error.logits < limit, JSON.stringify(error));
          assert.notDeepEqual(found, run(engine));
        });
      }

      it("are not mixed up by recorded work: every cure keeps its bits after the others", () => {
        const each = () => [...CURES, ...NEUTRAL].map((cure) => run(curedEngine(engine, cure, reference)));
        assert.deepEqual(each(), each());
      });

      it("give the first layer the state of its last inputs alone: window", () => {
        const batch = batchOf(model);
        const cured = curedEngine(engine, { kind: "window", tokens: 2 * EVERY, everyTokens: EVERY });
        const windowed = cured.createStates(LANES);
        cured.score(batch, windowed);
        const plain = engine.createStates(LANES);
        engine.score(segmentOf(batch, 0, TOKENS - 2 * EVERY), plain);
        engine.zeroStates(plain, "ssm");
        engine.score(segmentOf(batch, TOKENS - 2 * EVERY, 2 * EVERY), plain);
        const first = (states: LaneStates): Float32Array => firstLayer(engine, states);
        const error = relativeError(first((windowed as LaneStates & { inner: LaneStates }).inner), first(plain));
        assert.ok(error < limit, `${error}`);
        cured.freeStates(windowed);
        engine.freeStates(plain);
      });

      it("know what a pass did in every layer", () => {
        const [found, expected] = [engine, withParameters(createReferenceEngine(model))].map((of) => {
          const moments = newLayerMoments(model, LANES);
          for (const array of Object.values(moments) as Float64Array[]) array.fill(NaN);
          for (const start of [0, 10]) of.score(segmentOf(batchOf(model), start, 70), of.createStates(LANES), { moments });
          return moments;
        });
        for (const sums of ["dt_BLH", "x2_BLH", "b2_BLG", "c2_BLG"] as const) {
          const error = relativeError(found![sums], expected![sums]);
          assert.ok(error < limit, `${sums}: ${error}`);
        }
      });
    });
  }
}

/** The first layer's SSM states of all lanes. */
function firstLayer(engine: Engine, states: LaneStates): Float32Array {
  const { model } = engine;
  const floats = laneStateFloats(model);
  const layer = (floats - convStateFloats(model)) / model.layers;
  const all = new Float32Array(states.lanes * floats);
  engine.readStates(states, all);
  return joined(Array.from({ length: states.lanes }, (_, lane) => all.slice(lane * floats, lane * floats + layer)));
}
