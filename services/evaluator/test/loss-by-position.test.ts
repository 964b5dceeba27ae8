import assert from "node:assert/strict";
import { byteTokenizer, NO_CURE, positionPrompt, validateJobSpec } from "@segue/core";
import { availableEngines, createEngine, initialParameters, type Engine, type EngineName } from "@segue/engine";
import { evaluateLossCell, lossByPositionTask, type LossCell, type LossCellResult } from "../src/tasks/loss-by-position.js";

const { spec } = validateJobSpec({
  model: { layers: 2, dModel: 32, headDim: 16, dState: 16, chunk: 64 },
  data: { passkey: {} },
  train: { steps: 1 },
});
const tokenizer = byteTokenizer();
const cell: LossCell = {
  ...{ task: "lossByPosition", jobId: "job", step: 1, digest: "ab".repeat(32), evaluationId: "job_1_loss", cure: NO_CURE },
  ...{ firstPrompt: 1, prompts: 2, tokens: 5000, bucketTokens: 100, prompt: "random", seed: 4 },
};

describe("evaluateLossCell", () => {
  let engine: Engine;
  before(async () => {
    const offers = await availableEngines();
    const name: EngineName = offers.some((offer) => offer.name === "cpu" && offer.reason === undefined) ? "cpu" : "tfjs";
    engine = await createEngine(name, { model: spec.model, precision: "f32", threads: 1 });
    engine.writeParameters(initialParameters(spec.model, 1));
  });
  after(() => engine.close());

  it("gives the losses of the prompts scored whole, each by itself, averaged by bucket", () => {
    const found = evaluateLossCell({ engine, tokenizer }, cell);
    assert.equal(found.losses.length, 50);
    const expected = new Float64Array(50);
    for (const index of [1, 2]) {
      const text = positionPrompt(tokenizer, { ...cell, prompt: "random" }, index).read(0, 5001);
      const states = engine.createStates(1);
      const batch = { lanes: 1, tokens: 5000, tokens_BT: text.slice(0, 5000), labels_BT: text.slice(1) };
      engine.score(batch, states).forEach((loss, at) => (expected[Math.floor(at / 100)]! += loss / 200));
      engine.freeStates(states);
    }
    found.losses.forEach((loss, bucket) => assert.ok(Math.abs(loss! - expected[bucket]!) < 1e-4, `${loss} ${expected[bucket]}`));
    assert.equal(found.tokens, 10_000);
  });

  it("is the same twice, and tells how far it is", () => {
    const progress: number[] = [];
    const first = evaluateLossCell({ engine, tokenizer }, cell, (done) => progress.push(done));
    assert.deepEqual(evaluateLossCell({ engine, tokenizer }, cell).losses, first.losses);
    assert.deepEqual(progress, [4096, 8192, 10_000]);
  });

  it("averages a last bucket that the prompt does not fill over what there is", () => {
    const whole = evaluateLossCell({ engine, tokenizer }, { ...cell, tokens: 150, bucketTokens: 50 }).losses as number[];
    const cut = evaluateLossCell({ engine, tokenizer }, { ...cell, tokens: 150, bucketTokens: 100 }).losses as number[];
    assert.ok(Math.abs(cut[0]! - (whole[0]! + whole[1]!) / 2) < 1e-5);
    assert.equal(cut[1], whole[2]);
  });
});

describe("lossByPositionTask.close", () => {
  const closing = {
    task: "lossByPosition",
    jobId: "j",
    evaluationId: "e",
    bucketTokens: 10,
    trainTokens: 20,
    collapseFactor: 2,
  } as const;
  const part = (firstPrompt: number, prompts: number, losses: (number | null)[]): LossCellResult => ({
    ...{ firstPrompt, prompts, losses, ms: 1, tokens: 1 },
  });

  it("averages over prompts before it judges, whichever cell is there first", () => {
    const parts = [part(0, 3, [2, 2, 2, 2]), part(3, 1, [2, 2, 2, 18])];
    const { fields, summary } = lossByPositionTask.close(closing, parts);
    assert.equal(fields["losses"], "[2,2,2,6]");
    assert.deepEqual(summary, { collapsed: true, trainLoss: 2, worstRatio: 3, worstPosition: 30, firstPosition: 30 });
    assert.deepEqual(lossByPositionTask.close(closing, [...parts].reverse()).fields, fields);
  });

  it("says so when there is nothing to compare with", () => {
    assert.throws(() => lossByPositionTask.close(closing, [part(0, 1, [null, 2, 3])]), { code: "LOSS_NOT_FINITE" });
  });
});
