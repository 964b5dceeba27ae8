import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { Worker } from "node:worker_threads";
import { DEFAULT_SPEC, laneStateFloats, ssmStateFloats, type ModelSpec } from "@segue/core";
import type { Engine, LaneStates, SegmentBatch } from "../src/engine.js";
import { greedyDecode, prefillPrompt } from "../src/decode.js";
import { loadTensorFlow } from "../src/tfjs/tensorflow.js";
import { createTfjsEngine } from "../src/tfjs/tfjs-engine.js";
import { noise, noisyParameters, randomTokens, relativeError, worstTensor } from "./native-support.js";

const MODEL: ModelSpec = {
  layers: 2,
  dModel: 16,
  dState: 8,
  headDim: 8,
  expand: 2,
  dConv: 4,
  groups: 2,
  chunk: 8,
  vocab: 32,
  padVocabMultiple: 16,
  tieEmbeddings: true,
  rmsEps: 1e-5,
};
const LANES = 2;
const TOKENS = 29;

function randomBatch(tokens = TOKENS, resets: readonly [lane: number, token: number][] = []): SegmentBatch {
  const resets_BT = new Uint8Array(LANES * tokens);
  for (const [lane, token] of resets) resets_BT[lane * tokens + token] = 1;
  return {
    lanes: LANES,
    tokens,
    tokens_BT: randomTokens("tokens", LANES * tokens, MODEL.vocab),
    labels_BT: randomTokens("labels", LANES * tokens, MODEL.vocab),
    weights_BT: noise("weights", LANES * tokens).map(Math.abs),
    ...(resets.length > 0 ? { resets_BT } : {}),
  };
}

/** Tokens `from` to `to` of every lane, or of one. */
function cut(batch: SegmentBatch, from: number, to: number, lane?: number): SegmentBatch {
  const lanes = lane === undefined ? Array.from({ length: batch.lanes }, (_, i) => i) : [lane];
  const rows = <T extends Int32Array | Float32Array | Uint8Array>(values: T, into: T): T => {
    lanes.forEach((l, i) => into.set(values.subarray(l * batch.tokens + from, l * batch.tokens + to), i * (to - from)));
    return into;
  };
  const size = lanes.length * (to - from);
  return {
    lanes: lanes.length,
    tokens: to - from,
    tokens_BT: rows(batch.tokens_BT, new Int32Array(size)),
    labels_BT: rows(batch.labels_BT, new Int32Array(size)),
    weights_BT: batch.weights_BT && rows(batch.weights_BT, new Float32Array(size)),
    resets_BT: batch.resets_BT && rows(batch.resets_BT, new Uint8Array(size)),
  };
}

describe("tfjs engine", () => {
  let engine: Engine;
  const states: LaneStates[] = [];
  const zeroStates = (lanes = LANES): LaneStates => {
    const created = engine.createStates(lanes);
    states.push(created);
    return created;
  };
  const randomStates = (lanes = LANES): LaneStates => {
    const created = zeroStates(lanes);
    engine.writeStates(created, noise("states", lanes * laneStateFloats(MODEL), 0.5));
    return created;
  };
  const read = (from: LaneStates): Float32Array => {
    const values = new Float32Array(from.lanes * laneStateFloats(MODEL)).fill(NaN);
    engine.readStates(from, values);
    return values;
  };
  const train = (batch: SegmentBatch, from: LaneStates): { loss: number; gradient: Float32Array } => {
    const gradient = new Float32Array(engine.layout.size).fill(NaN);
    return { loss: engine.forwardBackward(batch, from, gradient), gradient };
  };
  const sum = (gradients: readonly Float32Array[]): Float32Array =>
    new Float32Array(engine.layout.size).map((_, i) => gradients.reduce((total, gradient) => total + gradient[i]!, 0));
  const close = (actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance = 1e-5): void => {
    const error = relativeError(actual, expected);
    assert.ok(error < tolerance, `off by ${error}`);
  };

  before(async () => {
    engine = await createTfjsEngine({ model: MODEL, precision: "f32", threads: 1 }, ["wasm"]);
    engine.writeParameters(noisyParameters(MODEL));
  });
  afterEach(() => states.splice(0).forEach((each) => engine.freeStates(each)));
  after(() => engine.close());

  it("gives the same losses and final states in one pass as in segments that carry the state", () => {
    const batch = randomBatch();
    const whole = randomStates();
    const losses = engine.score(batch, whole);
    // Segments shorter than the convolution, one chunk, several chunks, and no multiple of a chunk.
    for (const bounds of [
      [0, 1, 3, 4, 12, 29],
      [0, 16, 29],
      [0, 28, 29],
    ]) {
      const carried = randomStates();
      const pieces = new Float32Array(losses.length);
      bounds.slice(1).forEach((to, i) => {
        const from = bounds[i]!;
        const part = engine.score(cut(batch, from, to), carried);
        for (let lane = 0; lane < LANES; lane++) {
          pieces.set(part.subarray(lane * (to - from), (lane + 1) * (to - from)), lane * TOKENS + from);
        }
      });
      close(pieces, losses);
      close(read(carried), read(whole));
    }
  });

  it("treats a reset anywhere as the start of a document with a state of zeros", () => {
    // Lane 0: two in one chunk, one within the convolution's reach of the other. Lane 1: first token, chunk boundary, last token.
    const starts: [number, number][] = [
      [0, 9],
      [0, 11],
      [1, 0],
      [1, 16],
      [1, 28],
    ];
    const batch = randomBatch(TOKENS, starts);
    const together = randomStates();
    const { loss, gradient } = train(batch, together);
    const final = read(together);

    const separate: { loss: number; gradient: Float32Array }[] = [];
    const initial = read(randomStates());
    const laneFloats = laneStateFloats(MODEL);
    for (let lane = 0; lane < LANES; lane++) {
      const bounds = [...new Set([0, ...starts.filter(([l]) => l === lane).map(([, token]) => token), TOKENS])];
      let own = zeroStates(1);
      if (lane === 0) engine.writeStates(own, initial.subarray(0, laneFloats));
      bounds.slice(1).forEach((to, i) => {
        if (i > 0) own = zeroStates(1);
        const document = { ...cut(batch, bounds[i]!, to, lane), resets_BT: undefined };
        separate.push(train(document, own));
      });
      close(final.subarray(lane * laneFloats, (lane + 1) * laneFloats), read(own));
    }
    close([loss], [separate.reduce((total, each) => total + each.loss, 0)]);
    const worst = worstTensor(MODEL, gradient, sum(separate.map((each) => each.gradient)));
    assert.ok(worst.error < 1e-4, `${worst.name} is off by ${worst.error}`);
  });

  it("has the gradient that finite differences of the loss show", () => {
    const batch = randomBatch(TOKENS, [[1, 5]]);
    const { gradient } = train(batch, randomStates());
    const original = noisyParameters(MODEL);
    // Along the gradient itself, where the slope is its norm.
    const norm = Math.sqrt(gradient.reduce((total, value) => total + value * value, 0));
    const direction = gradient.map((value) => value / norm);
    const lossAt = (step: number): number => {
      engine.writeParameters(original.map((value, i) => value + step * direction[i]!));
      return train(batch, randomStates()).loss;
    };
    const step = 3e-3;
    const slope = (lossAt(step) - lossAt(-step)) / (2 * step);
    engine.writeParameters(original);
    assert.ok(Math.abs(slope - norm) < 0.003 * norm, `slope ${slope}, by the gradient ${norm}`);
  });

  it("takes the carried state as a constant, so that no gradient reaches the segment before", () => {
    const batch = randomBatch();
    const carried = zeroStates();
    train(cut(batch, 0, 16), carried);
    const stored = read(carried);
    const second = train(cut(batch, 16, TOKENS), carried);
    const restored = zeroStates();
    engine.writeStates(restored, stored);
    const again = train(cut(batch, 16, TOKENS), restored);
    assert.deepEqual(again, second);
    // And so the two segments' gradients do not add up to that of one pass, in which it does flow.
    const onePass = train(batch, zeroStates()).gradient;
    const segments = sum([train(cut(batch, 0, 16), zeroStates()).gradient, second.gradient]);
    assert.ok(relativeError(segments, onePass) > 1e-3);
  });

  it("scales loss and gradient by the labels' weights and ignores labels of weight 0", () => {
    const batch = randomBatch();
    const losses = engine.score(batch, zeroStates());
    const { loss } = train(batch, zeroStates());
    close([loss], [losses.reduce((total, value, i) => total + value * batch.weights_BT![i]!, 0)]);
    const half = batch.weights_BT!.map((weight, i) => (i % 2 ? 0 : weight));
    const otherLabels = batch.labels_BT.map((label, i) => (i % 2 ? 0 : label));
    const masked = train({ ...batch, weights_BT: half }, zeroStates());
    assert.deepEqual(train({ ...batch, weights_BT: half, labels_BT: otherLabels }, zeroStates()), masked);
    const nothing = train({ ...batch, weights_BT: half.map(() => 0) }, zeroStates());
    assert.equal(nothing.loss, 0);
    assert.ok(nothing.gradient.every((value) => value === 0));
  });

  it("advances the states alike in forwardBackward, score, prefill and token by token", () => {
    const batch = { ...randomBatch(), weights_BT: undefined };
    const [trained, scored, prefilled, decoded] = [randomStates(), randomStates(), randomStates(), randomStates()];
    const { loss } = train(batch, trained);
    const losses = engine.score(batch, scored);
    close([losses.reduce((total, value) => total + value, 0)], [loss]);
    const logits = engine.prefill(batch, prefilled);
    const readTokens = (lane: number, from: number, count: number) =>
      batch.tokens_BT.subarray(lane * TOKENS + from).subarray(0, count);
    const steps = prefillPrompt(engine, decoded, { ...batch, read: readTokens }, 1);
    close(steps, logits);
    for (const other of [scored, prefilled, decoded]) close(read(other), read(trained));
    // The label's cross-entropy follows from the logits.
    for (let lane = 0; lane < LANES; lane++) {
      const row = logits.subarray(lane * MODEL.vocab, (lane + 1) * MODEL.vocab);
      const last = lane * TOKENS + TOKENS - 1;
      const expected = Math.log(row.reduce((total, value) => total + Math.exp(value), 0)) - row[batch.labels_BT[last]!]!;
      close([losses[last]!], [expected]);
    }
  });

  it("decodes what repeated prefills of the whole text would", () => {
    const prompt = randomTokens("prompt", 11, MODEL.vocab);
    const pieces: number[] = [];
    const read = (_lane: number, from: number, count: number): Int32Array => {
      pieces.push(count);
      return prompt.subarray(from, from + count);
    };
    const own = zeroStates(1);
    const logits = prefillPrompt(engine, own, { lanes: 1, tokens: 11, read }, 4);
    assert.deepEqual(pieces, [4, 4, 3]);
    const decoded = greedyDecode(engine, own, logits, 5);
    const text = [...prompt];
    for (const token of decoded) {
      const whole = engine.prefill({ lanes: 1, tokens: text.length, tokens_BT: Int32Array.from(text) }, zeroStates(1));
      assert.equal(token, whole.indexOf(Math.max(...whole)));
      text.push(token);
    }
  });

  it("reads states exactly as written and zeroes one part of them", () => {
    const values = noise("round trip", LANES * laneStateFloats(MODEL));
    const own = zeroStates();
    engine.writeStates(own, values);
    assert.deepEqual(read(own), values);
    const isSsm = (i: number): boolean => i % laneStateFloats(MODEL) < ssmStateFloats(MODEL);
    engine.zeroStates(own, "conv");
    assert.deepEqual(
      read(own),
      values.map((value, i) => (isSsm(i) ? value : 0)),
    );
    engine.writeStates(own, values);
    engine.zeroStates(own, "ssm");
    assert.deepEqual(
      read(own),
      values.map((value, i) => (isSsm(i) ? 0 : value)),
    );
  });

  it("forks one lane's state into many, which then go on alone", () => {
    const from = randomStates();
    const before = read(from);
    const forked = engine.forkStates(from, 1, 5);
    states.push(forked);
    const lane = before.subarray(laneStateFloats(MODEL), 2 * laneStateFloats(MODEL));
    assert.deepEqual(
      read(forked),
      Float32Array.from({ length: 5 * lane.length }, (_, i) => lane[i % lane.length]!),
    );
    engine.prefill({ lanes: 5, tokens: 1, tokens_BT: Int32Array.of(1, 2, 3, 4, 5) }, forked);
    assert.deepEqual(read(from), before);
    assert.throws(() => engine.forkStates(from, -1, 2), /lane -1 is not among/);
  });

  it("keeps no reference to arrays it is given", () => {
    const parameters = noisyParameters(MODEL);
    const batch = randomBatch();
    const expected = engine.score(batch, randomStates());
    engine.writeParameters(parameters);
    parameters.fill(0);
    const values = noise("states", LANES * laneStateFloats(MODEL), 0.5);
    const own = zeroStates();
    engine.writeStates(own, values);
    values.fill(0);
    assert.deepEqual(engine.score(batch, own), expected);
  });

  it("refuses input of the wrong size or outside the vocabulary", () => {
    const batch = randomBatch();
    const invalid = { code: "ENGINE_INPUT_INVALID" };
    const tooLarge = batch.tokens_BT.with(3, MODEL.vocab);
    assert.throws(() => engine.prefill({ ...batch, tokens_BT: tooLarge }, zeroStates()), invalid);
    assert.throws(() => train({ ...batch, labels_BT: batch.labels_BT.with(0, -1) }, zeroStates()), invalid);
    assert.throws(() => engine.score(batch, zeroStates(1)), invalid);
    assert.throws(() => engine.writeParameters(new Float32Array(3)), invalid);
    assert.throws(() => engine.writeStates(zeroStates(), new Float32Array(3)), invalid);
  });

  it("leaves no tensor behind", async () => {
    const { tf } = await loadTensorFlow(["wasm"]);
    const before = tf.memory().numTensors;
    const other = await createTfjsEngine({ model: MODEL, precision: "f32", threads: 1 }, ["wasm"]);
    other.writeParameters(noisyParameters(MODEL));
    const own = other.createStates(LANES);
    const gradient = new Float32Array(other.layout.size);
    const batch = randomBatch(TOKENS, [[0, 3]]);
    const counts = Array.from({ length: 3 }, (_, i) => {
      other.forwardBackward(batch, own, gradient);
      other.applyAdamW(gradient, { optimizer: DEFAULT_SPEC.optimizer, learningRate: 1e-3, step: i + 1, totalWeight: 58 });
      other.score(batch, own);
      other.prefill(batch, own);
      other.zeroStates(own, "conv");
      return tf.memory().numTensors;
    });
    assert.deepEqual(new Set(counts).size, 1, `tensors after each step: ${counts.join(", ")}`);
    other.close();
    other.close();
    assert.equal(tf.memory().numTensors, before);
  });

  it("lowers the loss of a text it sees again and again", () => {
    const batch = { ...randomBatch(), weights_BT: undefined };
    const losses = Array.from({ length: 12 }, (_, i) => {
      const { loss, gradient } = train(batch, zeroStates());
      engine.applyAdamW(gradient, {
        optimizer: DEFAULT_SPEC.optimizer,
        learningRate: 0.01,
        step: i + 1,
        totalWeight: LANES * TOKENS,
      });
      return loss / (LANES * TOKENS);
    });
    engine.writeParameters(noisyParameters(MODEL));
    assert.ok(losses.at(-1)! < 0.7 * losses[0]!, losses.join(", "));
  });

  it("computes the same bits in a thread of its own, and nearly the same in plain JavaScript", async () => {
    const batch = randomBatch(TOKENS, [[0, 7]]);
    const here = train(batch, randomStates());
    const inThread = await trainInThread("wasm", batch);
    assert.equal(inThread.detail, engine.description.detail);
    assert.match(inThread.detail, /^tfjs \(wasm/);
    assert.equal(inThread.sha256, sha256(here.gradient));
    assert.equal(inThread.loss, here.loss);
    const plain = await trainInThread("js", batch);
    assert.equal(plain.detail, "tfjs (plain JavaScript)");
    close([plain.loss], [here.loss]);
  });

  async function trainInThread(variant: string, batch: SegmentBatch): Promise<{ detail: string; loss: number; sha256: string }> {
    const file = new URL("tfjs-thread.ts", import.meta.url).href;
    // A thread does not inherit the TypeScript loader.
    const start = `import("tsx/esm/api").then(({ register }) => { register(); return import(${JSON.stringify(file)}); })`;
    const worker = new Worker(start, {
      eval: true,
      workerData: {
        variant,
        model: MODEL,
        parameters: noisyParameters(MODEL),
        states: noise("states", LANES * laneStateFloats(MODEL), 0.5),
        batch,
      },
      stdout: true,
    });
    let printed = "";
    worker.stdout.on("data", (chunk: Buffer) => (printed += chunk.toString()));
    const result = await new Promise<{ detail: string; loss: number; gradient: Float32Array }>((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
    await worker.terminate();
    assert.equal(printed, "");
    return { detail: result.detail, loss: result.loss, sha256: sha256(result.gradient) };
  }
});

function sha256(values: Float32Array): string {
  return createHash("sha256").update(new Uint8Array(values.buffer)).digest("hex");
}
