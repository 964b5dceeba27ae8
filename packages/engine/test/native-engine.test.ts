import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { laneStateFloats, type ModelSpec } from "@segue/core";
import { openCpuDevice } from "../src/devices/cpu/cpu-device.js";
import { referenceDevice } from "../src/devices/reference/reference-device.js";
import { greedyDecode } from "../src/decode.js";
import type { AdamWStep, Engine, LaneStates, SegmentBatch } from "../src/engine.js";
import { DeviceEngine } from "../src/native/device-engine.js";
import { trainingArenaFloats } from "../src/native/training-buffers.js";
import { createCpuEngine, createReferenceEngine } from "../src/native/index.js";
import { CPU_VARIANTS, cpuVariant, someResets } from "./devices-support.js";
import { noisyParameters, randomTokens, relativeError, worstTensor } from "./native-support.js";

/** Odd widths, two groups, a chunk that divides nothing; large enough that every operation uses its threads. */
const MODEL: ModelSpec = {
  ...{ layers: 2, dModel: 84, dState: 20, headDim: 12, expand: 2, dConv: 4, groups: 2, chunk: 24, vocab: 101, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};
const SMALL: ModelSpec = { ...MODEL, dModel: 12, headDim: 6, dState: 5, vocab: 17 };

function segmentOf(model: ModelSpec, lanes: number, tokens: number, withResets = true): SegmentBatch {
  const rows = lanes * tokens;
  return {
    lanes,
    tokens,
    tokens_BT: randomTokens("tokens", rows, model.vocab),
    labels_BT: randomTokens("labels", rows, model.vocab),
    weights_BT: Float32Array.from({ length: rows }, (_, r) => (r % 5) / 2),
    resets_BT: withResets ? Uint8Array.from(someResets("engine", rows, 40)) : undefined,
  };
}

const ADAMW: AdamWStep = {
  optimizer: { learningRate: 3e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 },
  ...{ learningRate: 3e-3, step: 1, totalWeight: 100 },
};

/** Two steps; everything that comes out of them. */
function train(
  engine: Engine,
  batch: SegmentBatch,
): Record<"losses" | "gradient" | "states" | "parameters" | "norms", Float32Array> {
  engine.writeParameters(noisyParameters(engine.model));
  const states = engine.createStates(batch.lanes);
  const gradient = new Float32Array(engine.layout.size).fill(NaN);
  const [losses, norms] = [new Float32Array(2), new Float32Array(2)];
  for (const step of [0, 1]) {
    losses[step] = engine.forwardBackward(batch, states, gradient);
    norms[step] = engine.applyAdamW(gradient, { ...ADAMW, step: step + 1 });
  }
  const [parameters, finals] = [
    new Float32Array(engine.layout.size),
    new Float32Array(batch.lanes * laneStateFloats(engine.model)),
  ];
  engine.readParameters(parameters);
  engine.readStates(states, finals);
  return { losses, gradient, states: finals, parameters, norms };
}

const digest = (values: Record<string, Float32Array>): string => {
  const hash = createHash("sha256");
  for (const floats of Object.values(values)) hash.update(floats);
  return hash.digest("hex");
};

describe("cpu engine", () => {
  it("gives the same bits on 1, 2, 3 and 4 threads, and from run to run", async () => {
    const batch = segmentOf(MODEL, 5, 130);
    const digests = new Set<string>();
    for (const threads of [1, 2, 3, 4, 2]) {
      const engine = await createCpuEngine({ model: MODEL, precision: "f32", threads });
      const results = train(engine, batch);
      const [logits, scores] = [
        engine.prefill(batch, engine.createStates(batch.lanes)),
        engine.score(batch, engine.createStates(batch.lanes)),
      ];
      digests.add(digest({ ...results, logits, scores }));
      engine.close();
    }
    assert.equal(digests.size, 1);
  });

  for (const variant of CPU_VARIANTS) {
    it(`trains as the reference engine does (${variant})`, async function () {
      const device = await cpuVariant(variant, 2);
      if (!device) return this.skip();
      const batch = segmentOf(SMALL, 3, 41);
      const engine = new DeviceEngine("cpu", device, SMALL);
      const [actual, expected] = [train(engine, batch), train(createReferenceEngine(SMALL), batch)];
      assert.ok(relativeError(actual.losses, expected.losses) < 1e-5);
      assert.ok(relativeError(actual.states, expected.states) < 1e-5);
      assert.ok(relativeError(actual.norms, expected.norms) < 1e-5);
      assert.ok(relativeError(actual.parameters, expected.parameters) < 1e-5);
      const worst = worstTensor(SMALL, actual.gradient, expected.gradient);
      assert.ok(worst.error < 1e-4, `${worst.name}: ${worst.error}`);
      engine.close();
    });
  }

  it("takes no memory after the first step of a shape", async () => {
    const device = await openCpuDevice(2);
    let taken = 0;
    const counting = {
      ...device,
      floats: (length: number) => (taken++, device.floats(length)),
      ints: (n: number) => (taken++, device.ints(n)),
    };
    const engine = new DeviceEngine("cpu", counting, SMALL);
    const batch = segmentOf(SMALL, 3, 41);
    const states = engine.createStates(3);
    const gradient = new Float32Array(engine.layout.size);
    engine.forwardBackward(batch, states, gradient);
    engine.applyAdamW(gradient, ADAMW);
    const [takenOnce, scratchOnce] = [taken, device.scratchBytes()];
    for (let step = 2; step < 5; step++) {
      engine.forwardBackward(batch, states, gradient);
      engine.applyAdamW(gradient, { ...ADAMW, step });
    }
    assert.deepEqual([taken, device.scratchBytes()], [takenOnce, scratchOnce]);
    engine.close();
  });

  it("needs for a step the memory that was planned before it", async () => {
    const engine = new DeviceEngine("cpu", await openCpuDevice(1), SMALL);
    engine.forwardBackward(segmentOf(SMALL, 3, 41), engine.createStates(3), new Float32Array(engine.layout.size));
    assert.equal(engine.arenaBytes, 4 * trainingArenaFloats(SMALL, 3, 41));
    engine.close();
  });

  it("keeps nothing per layer in prefill and score", async () => {
    const sizes = await Promise.all(
      [2, 5].map(async (layers) => {
        const engine = new DeviceEngine("cpu", await openCpuDevice(1), { ...SMALL, layers });
        const batch = segmentOf(SMALL, 2, 64);
        engine.prefill(batch, engine.createStates(2));
        engine.score(batch, engine.createStates(2));
        const bytes = engine.arenaBytes;
        engine.close();
        return bytes;
      }),
    );
    assert.equal(sizes[0], sizes[1]);
  });

  it("refuses tokens and lengths that kernels would trip over", async () => {
    const engine = await createCpuEngine({ model: SMALL, precision: "f32", threads: 1 });
    const batch = segmentOf(SMALL, 2, 8);
    const states = engine.createStates(2);
    const gradient = new Float32Array(engine.layout.size);
    const refused = (change: Partial<SegmentBatch>, expected: RegExp): void => {
      assert.throws(() => engine.forwardBackward({ ...batch, ...change }, states, gradient), expected);
    };
    refused({ tokens_BT: batch.tokens_BT.map(() => 17) }, /token 17 is outside the vocabulary of 17/);
    refused({ labels_BT: batch.labels_BT.map(() => -1) }, /label -1 is outside/);
    refused({ weights_BT: new Float32Array(3) }, /weights: expected 16, got 3/);
    refused({ lanes: 1, tokens: 16 }, /lanes of the states: expected 1, got 2/);
    engine.close();
    engine.close();
  });
});

for (const [name, create] of Object.entries({
  reference: async (model: ModelSpec): Promise<DeviceEngine<Float64Array, Int32Array>> =>
    new DeviceEngine("cpu", referenceDevice, model),
  cpu: async (model: ModelSpec): Promise<DeviceEngine<Float32Array, Int32Array>> =>
    new DeviceEngine("cpu", await openCpuDevice(2), model),
})) {
  describe(`segments on the ${name} engine`, () => {
    const [lanes, tokens] = [3, 50];
    const whole = segmentOf(SMALL, lanes, tokens);
    const cut = (from: number, to: number): SegmentBatch => {
      const part = <A extends Int32Array | Float32Array | Uint8Array>(of: A): A =>
        of.filter((_, i) => i % tokens >= from && i % tokens < to) as A;
      return {
        ...{ lanes, tokens: to - from, tokens_BT: part(whole.tokens_BT), labels_BT: part(whole.labels_BT) },
        ...{ weights_BT: part(whole.weights_BT!), resets_BT: part(whole.resets_BT!) },
      };
    };
    const finals = (engine: Engine, states: LaneStates): Float32Array => {
      const into = new Float32Array(lanes * laneStateFloats(SMALL));
      engine.readStates(states, into);
      return into;
    };

    it("with carried state equal one pass: losses, last logits and states, cuts of one token included", async () => {
      const engine = await create(SMALL);
      engine.writeParameters(noisyParameters(SMALL));
      const one = engine.createStates(lanes);
      const losses = engine.score(whole, one);
      const many = engine.createStates(lanes);
      const cuts = [0, 1, 2, 19, 43, 50];
      const parts = cuts.slice(1).map((to, i) => engine.score(cut(cuts[i]!, to), many));
      const joined = Array.from({ length: lanes }, (_, b) =>
        parts.map((part) => Array.from(part.subarray((b * part.length) / lanes, ((b + 1) * part.length) / lanes))),
      );
      assert.ok(relativeError(joined.flat(2), losses) < 1e-5);
      assert.ok(relativeError(finals(engine, many), finals(engine, one)) < 1e-5);
      const trained = engine.createStates(lanes);
      engine.forwardBackward(whole, trained, new Float32Array(engine.layout.size));
      assert.ok(relativeError(finals(engine, trained), finals(engine, one)) < 1e-5);
      const [onePrefill, manyPrefill] = [engine.createStates(lanes), engine.createStates(lanes)];
      engine.prefill(cut(0, 20), manyPrefill);
      for (let t = 20; t < tokens - 1; t++) engine.prefill(cut(t, t + 1), manyPrefill);
      const last = engine.prefill(cut(tokens - 1, tokens), manyPrefill);
      assert.ok(relativeError(last, engine.prefill(whole, onePrefill)) < 1e-5);
      engine.close();
    });

    it("begin a document at a reset as if nothing had come before", async () => {
      const engine = await create(SMALL);
      engine.writeParameters(noisyParameters(SMALL));
      const from = 21;
      const resets_BT = Uint8Array.from({ length: lanes * tokens }, (_, i) => (i % tokens === from ? 1 : 0));
      const used = engine.createStates(lanes);
      engine.score(segmentOf(SMALL, lanes, tokens), used);
      const losses = engine.score({ ...whole, resets_BT }, used);
      const fresh = engine.createStates(lanes);
      const alone = engine.score({ ...cut(from, tokens), resets_BT: undefined }, fresh);
      assert.ok(
        relativeError(
          losses.filter((_, i) => i % tokens >= from),
          alone,
        ) < 1e-5,
      );
      assert.ok(relativeError(finals(engine, used), finals(engine, fresh)) < 1e-5);
      engine.close();
    });

    it("fork: prompts that share a prefix go on from it as if each had been run alone, to the bit", async () => {
      const engine = await create(SMALL);
      engine.writeParameters(noisyParameters(SMALL));
      const [copies, newTokens] = [9, 6];
      const shared = segmentOf(SMALL, 3, 30, false);
      const questions = randomTokens("questions", copies * 4, SMALL.vocab);
      const prefix = engine.createStates(3);
      engine.prefill(shared, prefix);
      const before = finals(engine, prefix);
      const forked = engine.forkStates(prefix, 1, copies);
      const logits = engine.prefill({ lanes: copies, tokens: 4, tokens_BT: questions }, forked);
      const together = greedyDecode(engine, forked, logits, newTokens);
      assert.deepEqual(finals(engine, prefix), before);
      for (let copy = 0; copy < copies; copy++) {
        const alone = engine.createStates(1);
        engine.prefill({ lanes: 1, tokens: 30, tokens_BT: shared.tokens_BT.slice(30, 60) }, alone);
        const own = engine.prefill({ lanes: 1, tokens: 4, tokens_BT: questions.slice(copy * 4, copy * 4 + 4) }, alone);
        assert.deepEqual(own, logits.slice(copy * SMALL.vocab, (copy + 1) * SMALL.vocab));
        const answer = greedyDecode(engine, alone, own, newTokens);
        assert.deepEqual(answer, together.slice(copy * newTokens, (copy + 1) * newTokens));
        const [end, endOfFork] = [new Float32Array(laneStateFloats(SMALL)), new Float32Array(copies * laneStateFloats(SMALL))];
        engine.readStates(alone, end);
        engine.readStates(forked, endOfFork);
        assert.deepEqual(end, endOfFork.slice(copy * end.length, (copy + 1) * end.length));
      }
      assert.throws(() => engine.forkStates(prefix, 3, 2), /lane 3 is not among the 3 of the states/);
      engine.close();
    });

    it("can have either part of their states zeroed, and report statistics of each head", async () => {
      const engine = await create(SMALL);
      engine.writeParameters(noisyParameters(SMALL));
      const states = engine.createStates(lanes);
      engine.score(whole, states);
      const before = finals(engine, states);
      const statistics = engine.stateStatistics(states);
      const headFloats = SMALL.headDim * SMALL.dState;
      const head = before.subarray(laneStateFloats(SMALL) + headFloats, laneStateFloats(SMALL) + 2 * headFloats);
      const heads = statistics.length / 4 / lanes;
      assert.ok(Math.abs(statistics[(heads + 1) * 4]! - head.reduce((sum, x) => sum + x, 0) / headFloats) < 1e-5);
      engine.zeroStates(states, "conv");
      const ssmOnly = finals(engine, states);
      engine.zeroStates(states, "ssm");
      assert.ok(finals(engine, states).every((x) => x === 0));
      assert.ok(ssmOnly.some((x) => x !== 0) && ssmOnly.some((x, i) => x === 0 && before[i] !== 0));
      engine.close();
    });
  });
}
