import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { laneStateFloats, randomStream, type ModelSpec } from "@segue/core";
import { openCpuDevice } from "../src/devices/cpu/cpu-device.js";
import { referenceDevice } from "../src/devices/reference/reference-device.js";
import type { Engine, LaneStates, SegmentBatch, SegmentRules } from "../src/engine.js";
import { DeviceEngine } from "../src/native/device-engine.js";
import { trainingArenaFloats } from "../src/native/training-buffers.js";
import { createCpuEngine } from "../src/native/index.js";
import { cutIntoSegments, segmentOf } from "../src/segments.js";
import { createTfjsEngine } from "../src/tfjs/tfjs-engine.js";
import { noise, noisyParameters, randomTokens, relativeError, worstTensor } from "./native-support.js";

/** Odd widths, two groups, segments of several chunks. */
const MODEL: ModelSpec = {
  ...{ layers: 2, dModel: 12, dState: 5, headDim: 6, expand: 2, dConv: 4, groups: 2, chunk: 8, vocab: 17, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};
const [LANES, TOKENS] = [3, 50];

/** Documents start inside segments and, in lanes 0 and 2, at the starts of segments of 10 and of 17 tokens; lane 1 has none after its second. */
const BATCH: SegmentBatch = {
  lanes: LANES,
  tokens: TOKENS,
  tokens_BT: randomTokens("tokens", LANES * TOKENS, MODEL.vocab),
  labels_BT: randomTokens("labels", LANES * TOKENS, MODEL.vocab),
  weights_BT: Float32Array.from({ length: LANES * TOKENS }, (_, r) => (r % 5) / 2),
  resets_BT: Uint8Array.from({ length: LANES * TOKENS }, (_, r) => ([20, 23, TOKENS + 1, 2 * TOKENS + 34].includes(r) ? 1 : 0)),
};

const RULES: SegmentRules = { segmentTokens: 17, gradient: "full", carrySsm: true, carryConv: true };

interface Trained {
  readonly lossSum: number;
  readonly gradient: Float32Array;
  readonly states: Float32Array;
}

/** One pass from states that a segment before left. */
function train(engine: Engine, rules?: SegmentRules, batch = BATCH): Trained {
  const states = usedStates(engine);
  const gradient = new Float32Array(engine.layout.size).fill(NaN);
  const lossSum = engine.forwardBackward(batch, states, gradient, rules);
  return { lossSum, gradient, states: read(engine, states) };
}

function usedStates(engine: Engine): LaneStates {
  const states = engine.createStates(LANES);
  engine.writeStates(states, noise("states", LANES * laneStateFloats(engine.model), 0.3));
  return states;
}

function read(engine: Engine, states: LaneStates): Float32Array {
  const into = new Float32Array(LANES * laneStateFloats(engine.model));
  engine.readStates(states, into);
  return into;
}

const digest = ({ lossSum, gradient, states }: Trained): string =>
  createHash("sha256").update(Float64Array.of(lossSum)).update(gradient).update(states).digest("hex");

/** The reference engine, and what came off its device last for an array, before it was rounded to float32. */
function exactEngine(model: ModelSpec): { engine: Engine; exactly: (into: Float32Array) => Float64Array } {
  const downloads = new Map<Float32Array, Float64Array>();
  const device = {
    ...referenceDevice,
    download: (from: Float64Array, to: Float32Array) => {
      downloads.set(to, from.slice());
      referenceDevice.download(from, to);
    },
  };
  const engine = new DeviceEngine("cpu", device, model);
  engine.writeParameters(noisyParameters(model));
  return { engine, exactly: (into) => downloads.get(into)! };
}

describe("full gradients on the float64 reference device", () => {
  const { engine, exactly } = exactEngine(MODEL);
  const exactGradient = (rules?: SegmentRules, batch = BATCH): Float64Array => exactly(train(engine, rules, batch).gradient);

  for (const segmentTokens of [1, 7, 10, 17, 49]) {
    it(`through segments of ${segmentTokens} tokens are those of one long segment, resets anywhere`, () => {
      const [whole, cut] = [train(engine), train(engine, { ...RULES, segmentTokens })];
      const error = relativeError(exactly(cut.gradient), exactly(whole.gradient));
      assert.ok(error < 1e-12, `${error}`);
      assert.ok(relativeError(exactly(cut.states), exactly(whole.states)) < 1e-12);
      assert.ok(Math.abs(cut.lossSum / whole.lossSum - 1) < 1e-6);
    });
  }

  it("reach from the labels of the last segment back to the tokens of the first", () => {
    const last = TOKENS - 16;
    const weights_BT = Float32Array.from({ length: LANES * TOKENS }, (_, r) => (r % TOKENS >= last ? 1 : 0));
    const batch = { ...BATCH, weights_BT, resets_BT: undefined };
    const whole = exactGradient(undefined, batch);
    assert.ok(relativeError(exactGradient(RULES, batch), whole) < 1e-12);
    assert.ok(relativeError(exactGradient({ ...RULES, gradient: "truncated" }, batch), whole) > 1e-2);
  });

  it("stop at a document's start as truncated ones do", () => {
    const resets_BT = Uint8Array.from({ length: LANES * TOKENS }, (_, r) => (r % TOKENS > 0 && (r % TOKENS) % 17 === 0 ? 1 : 0));
    const batch = { ...BATCH, resets_BT };
    assert.ok(relativeError(exactGradient(RULES, batch), exactGradient({ ...RULES, gradient: "truncated" }, batch)) < 1e-12);
  });

  for (const [what, carried] of Object.entries({
    "state and taps": { carrySsm: true, carryConv: true },
    "the state alone": { carrySsm: true, carryConv: false },
    "the taps alone": { carrySsm: false, carryConv: true },
  })) {
    it(`agree with finite differences where segments carry ${what}`, () => {
      const rules = { ...RULES, ...carried };
      const parameters = noisyParameters(MODEL);
      const gradient = exactGradient(rules);
      const truncated = exactGradient({ ...rules, gradient: "truncated" });
      let largestDifference = 0;
      for (const { name, offset, size } of engine.layout.entries) {
        const random = randomStream(5, name);
        const moved = [1, -1].map(() => parameters.slice());
        for (let i = offset; i < offset + size; i++) {
          const step = 2e-4 * random.normal();
          moved[0]![i]! += step;
          moved[1]![i]! -= step;
        }
        const [above, below] = moved.map((at) => exactLoss(at, rules)) as [number, number];
        const along = (g: Float64Array): number =>
          g.subarray(offset, offset + size).reduce((sum, x, i) => sum + x * (moved[0]![offset + i]! - moved[1]![offset + i]!), 0);
        const scale = Math.hypot(...gradient.subarray(offset, offset + size)) * 4e-4 * Math.sqrt(size);
        assert.ok(Math.abs(above - below - along(gradient)) < 1e-4 * scale, `${name}: ${above - below} for ${along(gradient)}`);
        largestDifference = Math.max(largestDifference, Math.abs(along(truncated) - along(gradient)) / scale);
      }
      // Finite differences could tell a gradient that stops at the boundaries.
      assert.ok(largestDifference > 1e-2, `${largestDifference}`);
      engine.writeParameters(parameters);
    });
  }

  /** Loss of the rules' segments, through `score` and `zeroStates` alone. */
  function exactLoss(parameters: Float32Array, rules: SegmentRules): number {
    engine.writeParameters(parameters);
    const states = usedStates(engine);
    let sum = 0;
    for (const segment of cutIntoSegments(BATCH, rules.segmentTokens)) {
      if (!rules.carrySsm) engine.zeroStates(states, "ssm");
      if (!rules.carryConv) engine.zeroStates(states, "conv");
      exactly(engine.score(segment, states)).forEach((loss, r) => (sum += loss * segment.weights_BT![r]!));
    }
    return sum;
  }
});

describe("steps of several segments on the cpu engine", () => {
  const withEngine = async (use: (engine: DeviceEngine<Float32Array, Int32Array>) => void, threads = 2): Promise<void> => {
    const engine = new DeviceEngine("cpu", await openCpuDevice(threads), MODEL);
    engine.writeParameters(noisyParameters(MODEL));
    use(engine);
    engine.close();
  };

  it("have the full gradient of one long segment within rounding", () =>
    withEngine((engine) => {
      const [whole, cut] = [train(engine), train(engine, RULES)];
      const worst = worstTensor(MODEL, cut.gradient, whole.gradient);
      assert.ok(worst.error < 1e-5, `${worst.name}: ${worst.error}`);
      assert.ok(relativeError(cut.states, whole.states) < 1e-5);
    }));

  it("have truncated gradients that are, bit for bit, the sum of those of separate calls", () =>
    withEngine((engine) => {
      for (const [carrySsm, carryConv] of [
        [true, true],
        [false, true],
        [true, false],
        [false, false],
      ] as const) {
        const together = train(engine, { ...RULES, gradient: "truncated", carrySsm, carryConv });
        const states = usedStates(engine);
        const [sum, part] = [new Float32Array(engine.layout.size), new Float32Array(engine.layout.size)];
        let lossSum = 0;
        for (const segment of cutIntoSegments(BATCH, RULES.segmentTokens)) {
          if (!carrySsm) engine.zeroStates(states, "ssm");
          if (!carryConv) engine.zeroStates(states, "conv");
          lossSum += engine.forwardBackward(segment, states, part);
          for (let i = 0; i < sum.length; i++) sum[i]! += part[i]!;
        }
        assert.deepEqual(together.gradient, sum);
        assert.deepEqual(together.states, read(engine, states));
        assert.ok(Math.abs(together.lossSum / lossSum - 1) < 1e-12);
      }
    }));

  it("have the truncated gradient where nothing is carried", () =>
    withEngine((engine) => {
      const nothing = { ...RULES, carrySsm: false, carryConv: false };
      const [full, truncated] = [train(engine, nothing), train(engine, { ...nothing, gradient: "truncated" })];
      assert.ok(relativeError(full.gradient, truncated.gradient) < 1e-6);
      assert.deepEqual(full.states, truncated.states);
    }));

  it("compute one segment alike with rules and without", () =>
    withEngine((engine) => {
      assert.equal(digest(train(engine, { ...RULES, segmentTokens: TOKENS })), digest(train(engine)));
    }));

  it("give the same bits on 1, 2, 3 and 4 threads, and from run to run", async () => {
    const digests = new Set<string>();
    for (const threads of [1, 2, 3, 4, 2]) await withEngine((engine) => digests.add(digest(train(engine, RULES))), threads);
    assert.equal(digests.size, 1);
  });

  it("need one state for each further segment, and nothing else, to let gradients through", async () => {
    const segmentTokens = 8;
    const bytes: number[] = [];
    const planned: number[] = [];
    for (const segments of [1, 2, 3, 6]) {
      await withEngine((engine) => {
        train(engine, { ...RULES, segmentTokens }, segmentOf(BATCH, 0, segments * segmentTokens));
        bytes.push(engine.arenaBytes);
      });
      planned.push(4 * trainingArenaFloats(MODEL, LANES, segmentTokens, segments));
    }
    assert.deepEqual(bytes, planned);
    const stateBytes = 4 * Math.ceil((LANES * laneStateFloats(MODEL)) / 16) * 16;
    // The second segment also brings the gradient of the states.
    assert.deepEqual(
      bytes.slice(1).map((of, i) => of - bytes[i]!),
      [2 * stateBytes, stateBytes, 3 * stateBytes],
    );
  });

  it("take no memory after the first step, truncated ones none for their number of segments", async () => {
    const device = await openCpuDevice(2);
    let taken = 0;
    const counting = { ...device, floats: (length: number) => (taken++, device.floats(length)) };
    const engine = new DeviceEngine("cpu", counting, MODEL);
    engine.writeParameters(noisyParameters(MODEL));
    const states = engine.createStates(LANES);
    const gradient = new Float32Array(engine.layout.size);
    const step = (rules: SegmentRules): unknown => engine.forwardBackward(BATCH, states, gradient, rules);
    step({ ...RULES, gradient: "truncated", segmentTokens: 25 });
    assert.equal(engine.arenaBytes, 4 * trainingArenaFloats(MODEL, LANES, 25));
    step(RULES);
    const [takenOnce, arenaOnce] = [taken, engine.arenaBytes];
    for (let i = 0; i < 3; i++) {
      step(RULES);
      step({ ...RULES, gradient: "truncated" });
    }
    assert.deepEqual([taken, engine.arenaBytes], [takenOnce, arenaOnce]);
    engine.close();
  });

  it("refuse segments of no tokens, and batches of wrong sizes before they are cut", () =>
    withEngine((engine) => {
      assert.throws(() => train(engine, { ...RULES, segmentTokens: 0 }), { code: "ENGINE_INPUT_INVALID" });
      const weights_BT = new Float32Array(3);
      assert.throws(() => train(engine, RULES, { ...BATCH, weights_BT }), /weights: expected 150, got 3/);
    }));
});

describe("steps of several segments on the tfjs engine", () => {
  it("have the gradients, states and losses of the cpu engine, whatever is carried", async () => {
    const options = { model: MODEL, precision: "f32", threads: 1 } as const;
    const [tfjs, cpu] = [await createTfjsEngine(options, ["wasm"]), await createCpuEngine(options)];
    for (const engine of [tfjs, cpu]) engine.writeParameters(noisyParameters(MODEL));
    for (const gradient of ["full", "truncated"] as const) {
      for (const [carrySsm, carryConv, segmentTokens] of [
        [true, true, 17],
        [true, true, MODEL.chunk],
        [true, false, 17],
        [false, true, 17],
        [false, false, 17],
      ] as const) {
        const rules = { segmentTokens, gradient, carrySsm, carryConv };
        const [actual, expected] = [train(tfjs, rules), train(cpu, rules)];
        const worst = worstTensor(MODEL, actual.gradient, expected.gradient);
        assert.ok(worst.error < 1e-4, `${JSON.stringify(rules)} ${worst.name}: ${worst.error}`);
        assert.ok(relativeError(actual.states, expected.states) < 1e-5);
        assert.ok(Math.abs(actual.lossSum / expected.lossSum - 1) < 1e-5);
      }
    }
    tfjs.close();
    cpu.close();
  });
});

describe("segment rules", () => {
  it("each give another gradient, so that the tests above can tell them apart", async () => {
    const engine = await createCpuEngine({ model: MODEL, precision: "f32", threads: 1 });
    engine.writeParameters(noisyParameters(MODEL));
    const gradients = [true, false].flatMap((carrySsm) =>
      [true, false].flatMap((carryConv) =>
        (["full", "truncated"] as const).map((gradient) => train(engine, { ...RULES, gradient, carrySsm, carryConv }).gradient),
      ),
    );
    const largest = (a: Float32Array, b: Float32Array): number => worstTensor(MODEL, a, b).error;
    // With nothing carried the last two agree.
    for (let i = 0; i < 7; i++) for (let j = 0; j < i; j++) assert.ok(largest(gradients[i]!, gradients[j]!) > 1e-3, `${i} ${j}`);
    engine.close();
  });
});
