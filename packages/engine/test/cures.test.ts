import assert from "node:assert/strict";
import { laneStateFloats, modelWidths, type CureSpec, type ModelSpec } from "@segue/core";
import { curedEngine } from "../src/cures/cured-engine.js";
import type { InferenceEngine } from "../src/cures/state-rule.js";
import type { ScanArgs } from "../src/devices/device.js";
import { referenceDevice } from "../src/devices/reference/reference-device.js";
import type { Engine, LaneStates, LayerMoments, SegmentBatch } from "../src/engine.js";
import { DeviceEngine } from "../src/native/device-engine.js";
import { createCpuEngine, createReferenceEngine } from "../src/native/index.js";
import { newLayerMoments } from "../src/native/moments.js";
import { createEngine } from "../src/create-engine.js";
import { someResets } from "./devices-support.js";
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

  for (const { window, every, cuts, resets_BT } of [
    { window: 24, every: 8, cuts: [] },
    { window: 24, every: 8, cuts: [3, 7, 31, 32] },
    { window: 8, every: 8, cuts: [] },
    { window: 5, every: 1, cuts: [] },
    { window: 24, every: 8, cuts: [30], resets_BT: Uint8Array.from(someResets("window", LANES * TOKENS, 25, [TOKENS + 16])) },
  ]) {
    const name = `${window}:${every}, calls end at ${cuts.join(", ") || "the end"}${resets_BT ? ", documents start" : ""}`;
    it(`give each layer the state of its last inputs alone: window ${name}`, () => {
      const calls: RecordedScan[] = [];
      const { engine: wide, laneFloats } = recordingEngine(calls);
      const cured = curedEngine(wide, { kind: "window", tokens: window, everyTokens: every });
      const states = cured.createStates(LANES);
      let from = 0;
      for (const to of [...cuts, TOKENS]) {
        const batch = part(from, to);
        const own = resets_BT?.filter((_, row) => row % TOKENS >= from && row % TOKENS < to);
        cured.score({ ...batch, resets_BT: own }, states);
        from = to;
      }
      let boundaries = 0;
      for (let layer = 0; layer < MODEL.layers; layer++) {
        const passes = calls.filter((_, index) => index % MODEL.layers === layer);
        let at = 0;
        passes.forEach(({ args, before }, pass) => {
          if (at > window && at % every === 0) {
            // The recurrence over the inputs that the layer really had, from zero.
            const last: typeof passes = [];
            for (let tokens = 0, i = pass - 1; tokens < window; i--) {
              last.unshift(passes[i]!);
              tokens += passes[i]!.args.tokens;
            }
            const error = wideError(before, scanned(last, laneFloats));
            assert.ok(error < 1e-12, `layer ${layer}, token ${at}: ${error}`);
            boundaries++;
          }
          at += args.tokens;
        });
      }
      assert.ok(boundaries >= MODEL.layers * Math.floor((TOKENS - window - every) / every));
    });
  }

  it("give the first layer of the cpu engine the state of its last inputs alone: window", () => {
    const [window, end] = [24, 56];
    const cured = curedEngine(engine, { kind: "window", tokens: window, everyTokens: 8 });
    const [windowed, plain] = [cured.createStates(LANES), engine.createStates(LANES)];
    cured.score(part(0, end), windowed);
    engine.score(part(0, end - window), plain);
    engine.zeroStates(plain, "ssm");
    engine.score(part(end - window, end), plain);
    const [found, expected] = [firstLayers(cured, windowed), firstLayers(engine, plain)];
    assert.ok(relativeError(found, expected) < 1e-5);
    cured.freeStates(windowed);
    engine.freeStates(plain);
  });

  for (const cure of CURES) {
    it(`give the same bits for calls that end at boundaries as for one: ${JSON.stringify(cure)}`, () => {
      const cured = curedEngine(engine, cure, reference);
      assert.deepEqual(run(cured, [8, 40, 48]), run(cured, [8, 16, 24, 32, 40, 48, 56]));
    });

    it(`see nothing of what came before a document's start: ${JSON.stringify(cure)}`, () => {
      // At a boundary, so that the same corrections are made in the document alone.
      const start = 40;
      const cured = curedEngine(engine, cure, reference);
      const [long, alone] = [cured.createStates(LANES), cured.createStates(LANES)];
      cured.prefill(part(0, 32), long);
      const resets_BT = Uint8Array.from({ length: LANES * (TOKENS - 32) }, (_, row) =>
        row % (TOKENS - 32) === start - 32 ? 1 : 0,
      );
      const found = cured.score({ ...part(32, TOKENS), resets_BT }, long).filter((_, row) => row % (TOKENS - 32) >= start - 32);
      assert.ok(relativeError(found, cured.score(part(start, TOKENS), alone)) < 1e-5);
    });

    it(`give back every state they took: ${JSON.stringify(cure)}`, () => {
      const counting = new CountingEngine();
      const cured = curedEngine(counting, cure, reference);
      const states = cured.createStates(LANES);
      cured.score(part(0, 47), states);
      const forked = cured.forkStates(states, 2, 4);
      cured.zeroStates(states, "ssm");
      cured.score(part(0, 47), states);
      cured.freeStates(states);
      cured.freeStates(forked);
      assert.equal(counting.live.size, 0);
    });
  }

  it("know what a pass did in every layer", () => {
    const states = engine.createStates(LANES);
    const moments = newLayerMoments(MODEL, LANES);
    for (const array of Object.values(moments) as Float64Array[]) array.fill(NaN);
    const recurrence = { logRetention: -0.1, insertion: 0.5, dtScale: 2 };
    engine.score(BATCH, states, { moments, recurrence });
    const calls: RecordedScan[] = [];
    const { engine: wide } = recordingEngine(calls);
    wide.score(BATCH, wide.createStates(LANES), { recurrence });
    const expected = expectedMoments(calls.map(({ args }) => args));
    for (const name of ["dt_BLH", "x2_BLH", "b2_BLG", "c2_BLG"] as const) {
      assert.ok(relativeError(moments[name], expected[name]) < 1e-5, name);
      assert.ok(
        expected[name].every((sum) => sum > 0),
        name,
      );
    }
    const dtOnly = { dt_BLH: new Float64Array(moments.dt_BLH.length) };
    engine.score(BATCH, engine.createStates(LANES), { moments: dtOnly, recurrence });
    assert.deepEqual(dtOnly.dt_BLH, moments.dt_BLH);
  });

  it("know what all pieces of a pass did", () => {
    const cured = curedEngine(engine, { kind: "window", tokens: 64, everyTokens: 8 });
    const [found, expected] = [newLayerMoments(MODEL, LANES), newLayerMoments(MODEL, LANES)];
    cured.score(BATCH, cured.createStates(LANES), { moments: found });
    engine.score(BATCH, engine.createStates(LANES), { moments: expected });
    for (const name of ["dt_BLH", "x2_BLH", "b2_BLG", "c2_BLG"] as const) {
      assert.ok(relativeError(found[name], expected[name]) < 1e-5, name);
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
    assert.throws(() => curedEngine(engine, CURES[2]!), { code: "ENGINE_INPUT_INVALID" });
  });
});

/** Knows which states are held. */
class CountingEngine extends DeviceEngine<Float64Array, Int32Array> {
  readonly live = new Set<LaneStates>();

  constructor() {
    super("cpu", referenceDevice, MODEL);
    this.writeParameters(noisyParameters(MODEL));
  }

  override createStates(lanes: number): LaneStates {
    return this.#held(super.createStates(lanes));
  }

  override forkStates(states: LaneStates, lane: number, copies: number): LaneStates {
    return this.#held(super.forkStates(states, lane, copies));
  }

  override freeStates(states: LaneStates): void {
    assert.ok(this.live.delete(states), "states that are held");
    super.freeStates(states);
  }

  #held(states: LaneStates): LaneStates {
    this.live.add(states);
    return states;
  }
}

interface RecordedScan {
  readonly args: ScanArgs<Float64Array, Int32Array>;
  /** The layer's states of all lanes before it. */
  readonly before: Float64Array;
}

/** An engine on the reference device that leaves what each layer's scan was given in `calls`. */
function recordingEngine(calls: RecordedScan[]): { engine: Engine; laneFloats: number } {
  const laneFloats = modelWidths(MODEL).dInner * MODEL.dState;
  const scan = (args: ScanArgs<Float64Array, Int32Array>): void => {
    const { data, stride } = args.state;
    const before = Array.from({ length: args.lanes }, (_, lane) => [...data.slice(lane * stride, lane * stride + laneFloats)]);
    const resets_R = args.resets_R?.slice();
    calls.push({
      args: { ...args, xBC_RC: args.xBC_RC.slice(), dt_RH: args.dt_RH.slice(), resets_R },
      before: Float64Array.from(before.flat()),
    });
    referenceDevice.scan(args);
  };
  const engine = new DeviceEngine("cpu", { ...referenceDevice, scan }, MODEL);
  engine.writeParameters(noisyParameters(MODEL));
  return { engine, laneFloats };
}

/** The states after these scans, from zero. */
function scanned(calls: readonly RecordedScan[], laneFloats: number): Float64Array {
  const data = new Float64Array(LANES * laneFloats);
  for (const { args } of calls) {
    const chunkStates_BKHPN = new Float64Array(args.chunkStates_BKHPN.length);
    const y_RI = new Float64Array(args.lanes * args.tokens * args.heads * args.headDim);
    referenceDevice.scan({ ...args, state: { data, stride: laneFloats }, chunkStates_BKHPN, y_RI });
  }
  return data;
}

function wideError(found: Float64Array, expected: Float64Array): number {
  return Math.hypot(...found.map((x, i) => x - expected[i]!)) / Math.hypot(...expected);
}

/** From what the scan of each layer was given. */
function expectedMoments(scans: readonly ScanArgs<Float64Array, Int32Array>[]): LayerMoments {
  const moments = newLayerMoments(MODEL, LANES);
  const { groups, headDim, dState } = MODEL;
  scans.forEach(({ lanes, tokens, heads, xBC_RC, dt_RH, insertion = 1 }, layer) => {
    const inner = heads * headDim;
    const width = inner + 2 * groups * dState;
    for (let row = 0; row < lanes * tokens; row++) {
      const at = Math.floor(row / tokens) * MODEL.layers + layer;
      for (let h = 0; h < heads; h++) moments.dt_BLH[at * heads + h]! += dt_RH[row * heads + h]!;
      for (let column = 0; column < width; column++) {
        const square = xBC_RC[row * width + column]! ** 2;
        const group = Math.floor((column - inner) / dState);
        if (column < inner) moments.x2_BLH[at * heads + Math.floor(column / headDim)]! += square;
        else if (group < groups) moments.b2_BLG[at * groups + group]! += insertion ** 2 * square;
        else moments.c2_BLG[at * groups + group - groups]! += square;
      }
    }
  });
  return moments;
}

/** The first layer's SSM states of all lanes. */
function firstLayers(of: Pick<Engine, "readStates">, states: LaneStates): Float32Array {
  const all = new Float32Array(LANES * laneStateFloats(MODEL));
  of.readStates(states, all);
  const layer = modelWidths(MODEL).dInner * MODEL.dState;
  return all.filter((_, index) => index % laneStateFloats(MODEL) < layer);
}

function twice({ tokens, tokens_BT, labels_BT }: SegmentBatch, lane: number): SegmentBatch {
  const both = (whole: Int32Array): Int32Array => {
    const own = whole.slice(lane * tokens, (lane + 1) * tokens);
    return Int32Array.from([...own, ...own]);
  };
  return { lanes: 2, tokens, tokens_BT: both(tokens_BT), labels_BT: both(labels_BT) };
}
