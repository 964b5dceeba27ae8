import assert from "node:assert/strict";
import { modelWidths, type CureSpec, type ModelSpec } from "@segue/core";
import { curedEngine } from "../src/cures/cured-engine.js";
import type { InferenceEngine } from "../src/cures/state-rule.js";
import type { ScanArgs } from "../src/devices/device.js";
import { referenceDevice } from "../src/devices/reference/reference-device.js";
import type { Engine, LaneStates, SegmentBatch } from "../src/engine.js";
import { DeviceEngine } from "../src/native/device-engine.js";
import { createCpuEngine, createReferenceEngine } from "../src/native/index.js";
import { newLayerMoments } from "../src/native/moments.js";
import { createEngine } from "../src/create-engine.js";
import { noisyParameters, randomTokens, relativeError } from "./native-support.js";

const MODEL: ModelSpec = {
  ...{ layers: 3, dModel: 24, dState: 10, headDim: 6, expand: 2, dConv: 4, groups: 2, chunk: 8, vocab: 31, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};
const LANES = 3;
const TOKENS = 61;

const REFERENCE = randomTokens("reference", 400, MODEL.vocab);
const reference = (at: number, count: number): Int32Array => REFERENCE.subarray(at, at + count);

const BATCH: SegmentBatch = {
  ...{ lanes: LANES, tokens: TOKENS },
  tokens_BT: randomTokens("tokens", LANES * TOKENS, MODEL.vocab),
  labels_BT: randomTokens("labels", LANES * TOKENS, MODEL.vocab),
};

/** Tokens [from, to) of every lane. */
function part(from: number, to: number): SegmentBatch {
  const cut = (whole: Int32Array): Int32Array =>
    Int32Array.from(
      { length: LANES * (to - from) },
      (_, i) => whole[Math.floor(i / (to - from)) * TOKENS + from + (i % (to - from))]!,
    );
  return { lanes: LANES, tokens: to - from, tokens_BT: cut(BATCH.tokens_BT), labels_BT: cut(BATCH.labels_BT) };
}

async function cpuEngine(threads = 2): Promise<Engine> {
  const engine = await createCpuEngine({ model: MODEL, precision: "f32", threads });
  engine.writeParameters(noisyParameters(MODEL));
  return engine;
}

function wideEngine(): Engine {
  const engine = createReferenceEngine(MODEL);
  engine.writeParameters(noisyParameters(MODEL));
  return engine;
}

/** Losses of the batch in calls that end at `cuts`, then logits of a decode step. */
function run(of: InferenceEngine, cuts: readonly number[]): { losses: Float32Array; logits: Float32Array } {
  const states = of.createStates(LANES);
  const losses = new Float32Array(LANES * TOKENS);
  let from = 0;
  for (const to of [...cuts, TOKENS]) {
    const found = of.score(part(from, to), states);
    for (let lane = 0; lane < LANES; lane++) {
      losses.set(found.subarray(lane * (to - from), (lane + 1) * (to - from)), lane * TOKENS + from);
    }
    from = to;
  }
  const logits = of.prefill({ lanes: LANES, tokens: 1, tokens_BT: Int32Array.of(1, 2, 3) }, states).slice();
  of.freeStates(states);
  return { losses, logits };
}

const CURES: readonly CureSpec[] = [
  { kind: "reduced", retention: 0.97, insertion: 0.75 },
  { kind: "longMamba", dtScale: 0.5 },
  { kind: "normalised", multiplier: 0.5, referenceTokens: 40, everyTokens: 8 },
  { kind: "window", tokens: 24, everyTokens: 8 },
  { kind: "window", tokens: 5, everyTokens: 1 },
];

describe("cures", () => {
  let engine: Engine;
  before(async () => (engine = await cpuEngine()));
  after(() => engine.close());

  for (const neutral of [
    { kind: "none" },
    { kind: "reduced", retention: 1, insertion: 1 },
    { kind: "longMamba", dtScale: 1 },
    { kind: "normalised", multiplier: 1e9, referenceTokens: 40, everyTokens: 8 },
    { kind: "window", tokens: 64, everyTokens: 8 },
  ] as const satisfies readonly CureSpec[]) {
    it(`change nothing, to the bit, where they are neutral: ${JSON.stringify(neutral)}`, () => {
      // Cuts at the boundaries, which the cures make themselves.
      const cuts = [8, 16, 24, 32, 40, 48, 56];
      assert.deepEqual(run(curedEngine(engine, neutral, reference), cuts), run(engine, cuts));
    });
  }

  for (const cure of CURES) {
    const name = JSON.stringify(cure);
    it(`agree on the cpu and the reference device: ${name}`, () => {
      const wide = wideEngine();
      const [found, expected] = [run(curedEngine(engine, cure, reference), []), run(curedEngine(wide, cure, reference), [])];
      assert.ok(relativeError(found.losses, expected.losses) < 1e-5);
      assert.ok(relativeError(found.logits, expected.logits) < 1e-5);
      assert.ok(relativeError(expected.losses, run(wide, []).losses) > 1e-4, "the cure does something");
    });

    it(`do not depend on how a text is cut into calls: ${name}`, () => {
      const cured = curedEngine(engine, cure, reference);
      const [whole, cut] = [run(cured, []), run(cured, [1, 2, 3, 17, 30, 31])];
      assert.ok(relativeError(cut.losses, whole.losses) < 1e-5);
      assert.ok(relativeError(cut.logits, whole.logits) < 1e-5);
    });

    it(`go on in forked lanes as in their own: ${name}`, () => {
      const cured = curedEngine(engine, cure, reference);
      const lanes = cured.createStates(LANES);
      cured.prefill(part(0, 37), lanes);
      const forked = cured.forkStates(lanes, 1, 2);
      const [own, copies] = [cured.score(part(37, TOKENS), lanes), cured.score(twice(part(37, TOKENS), 1), forked)];
      const tokens = TOKENS - 37;
      for (const copy of [0, 1]) {
        const error = relativeError(copies.slice(copy * tokens, (copy + 1) * tokens), own.slice(tokens, 2 * tokens));
        assert.ok(error < 1e-6, `${error}`);
      }
      cured.freeStates(lanes);
      cured.freeStates(forked);
    });

    it(`begin anew where the state is zeroed: ${name}`, () => {
      const cured = curedEngine(engine, cure, reference);
      const used = cured.createStates(LANES);
      cured.prefill(part(0, 29), used);
      cured.zeroStates(used, "ssm");
      cured.zeroStates(used, "conv");
      assert.deepEqual(cured.score(BATCH, used), cured.score(BATCH, cured.createStates(LANES)));
    });
  }

  it("leave no head above its threshold: normalised", () => {
    const cure = { kind: "normalised", multiplier: 0.5, referenceTokens: 40, everyTokens: 8 } as const;
    const alone = engine.createStates(1);
    engine.prefill({ lanes: 1, tokens: 40, tokens_BT: reference(0, 40) }, alone);
    const thresholds = engine.headNorms!(alone).map((norm) => norm * 0.5);
    const cured = curedEngine(engine, cure, reference);
    const states = cured.createStates(LANES);
    cured.prefill(part(0, 56), states);
    const norms = engine.headNorms!((states as unknown as { inner: LaneStates }).inner);
    norms.forEach((norm, i) => assert.ok(norm <= thresholds[i % thresholds.length]! * (1 + 1e-5)));
    assert.ok(
      norms.some((norm, i) => norm > thresholds[i % thresholds.length]! * 0.999),
      "some head was scaled down",
    );
  });

  it("give each layer the state of its last inputs alone: window", () => {
    const [window, every] = [24, 8];
    const { heads, dInner } = modelWidths(MODEL);
    const laneFloats = dInner * MODEL.dState;
    const calls: { args: ScanArgs<Float64Array, Int32Array>; before: Float64Array }[] = [];
    const recording = {
      ...referenceDevice,
      scan: (args: ScanArgs<Float64Array, Int32Array>) => {
        calls.push({
          args: { ...args, xBC_RC: args.xBC_RC.slice(), dt_RH: args.dt_RH.slice() },
          before: Float64Array.from(
            { length: LANES * laneFloats },
            (_, i) => args.state.data[Math.floor(i / laneFloats) * args.state.stride + (i % laneFloats)]!,
          ),
        });
        referenceDevice.scan(args);
      },
    };
    const wide = new DeviceEngine("cpu", recording, MODEL);
    wide.writeParameters(noisyParameters(MODEL));
    const cured = curedEngine(wide, { kind: "window", tokens: window, everyTokens: every });
    cured.score(BATCH, cured.createStates(LANES));

    for (let layer = 0; layer < MODEL.layers; layer++) {
      const pieces = calls.filter((_, index) => index % MODEL.layers === layer);
      for (let piece = window / every; piece < pieces.length; piece++) {
        // The recurrence over the inputs the layer really had in its last pieces, from zero.
        const data = new Float64Array(LANES * laneFloats);
        for (const { args } of pieces.slice(piece - window / every, piece)) {
          referenceDevice.scan({
            ...args,
            state: { data, stride: laneFloats },
            chunkStates_BKHPN: new Float64Array(args.chunkStates_BKHPN.length),
            y_RI: new Float64Array(args.lanes * args.tokens * heads * MODEL.headDim),
          });
        }
        const error = relativeError(Float32Array.from(pieces[piece]!.before), Float32Array.from(data));
        assert.ok(error < 1e-6, `layer ${layer}, piece ${piece}: ${error}`);
      }
    }
  });

  it("know what a pass did in every layer", () => {
    const states = engine.createStates(LANES);
    const moments = newLayerMoments(MODEL, LANES);
    for (const array of Object.values(moments) as Float32Array[]) array.fill(NaN);
    engine.score(BATCH, states, { moments });
    const wide = wideEngine();
    const expected = newLayerMoments(MODEL, LANES);
    wide.score(BATCH, wide.createStates(LANES), { moments: expected });
    for (const name of ["dt_BLH", "x2_BLH", "b2_BLG", "c2_BLG"] as const) {
      assert.ok(relativeError(moments[name], expected[name]) < 1e-5, name);
      assert.ok(
        expected[name].every((sum) => sum > 0),
        name,
      );
    }
  });

  it("are refused by the engine that knows none", async () => {
    const plain = await createEngine("tfjs", { model: MODEL, precision: "f32", threads: 1 });
    try {
      for (const cure of CURES) {
        assert.throws(() => curedEngine(plain, cure, reference), { code: "CURE_UNSUPPORTED" });
      }
      assert.equal(curedEngine(plain, { kind: "none" }), plain);
    } finally {
      plain.close();
    }
  });

  it("refuse what they cannot follow", () => {
    assert.throws(() => curedEngine(engine, { kind: "window", tokens: 25, everyTokens: 8 }), { code: "ENGINE_INPUT_INVALID" });
    const cured = curedEngine(engine, { kind: "window", tokens: 24, everyTokens: 8 });
    const resets_BT = new Uint8Array(LANES * TOKENS);
    assert.throws(() => cured.score({ ...BATCH, resets_BT }, cured.createStates(LANES)), { code: "ENGINE_INPUT_INVALID" });
  });
});

function twice({ tokens, tokens_BT, labels_BT }: SegmentBatch, lane: number): SegmentBatch {
  const both = (whole: Int32Array): Int32Array => {
    const own = whole.slice(lane * tokens, (lane + 1) * tokens);
    return Int32Array.from([...own, ...own]);
  };
  return { lanes: 2, tokens, tokens_BT: both(tokens_BT), labels_BT: both(labels_BT) };
}
