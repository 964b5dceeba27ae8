import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { byteTokenizer, NO_CURE, randomStream, validateJobSpec, type CureSpec } from "@segue/core";
import { availableEngines, createEngine, initialParameters, type Engine } from "@segue/engine";
import { CheckpointCache } from "../src/checkpoint-cache.js";
import { Evaluator } from "../src/evaluator.js";
import { ModelProcess } from "../src/model-process.js";
import { EvaluationResults } from "../src/results.js";
import { mostSnapshots } from "../src/prefix-states.js";
import { laneBytes, mostLanes } from "../src/state-memory.js";
import { Subjects } from "../src/subjects.js";
import type { LossCell, LossCellResult } from "../src/tasks/loss-by-position.js";
import type { PasskeyCell, PasskeyCellResult } from "../src/tasks/passkey.js";
import type { Cell } from "../src/tasks/task.js";
import { taskOf } from "../src/tasks/tasks.js";
import { logger, TestCluster } from "./cluster.js";

const { spec } = validateJobSpec({
  model: { layers: 2, dModel: 32, headDim: 16, dState: 16, chunk: 64 },
  data: { passkey: {} },
  train: { steps: 1 },
});
const ids = { jobId: "job", step: 1, digest: "ab".repeat(32), evaluationId: "job_1_e" };
const lossCell = (cure: CureSpec, prompt: LossCell["prompt"] = "random"): LossCell => ({
  ...{ ...ids, task: "lossByPosition", cure, firstPrompt: 0, prompts: 2, tokens: 1024, bucketTokens: 128, prompt, seed: 4 },
});
const passkeyCell = (cure: CureSpec): PasskeyCell => ({
  ...{ ...ids, task: "passkey", cure, length: 1500, depth: 0.7, samples: 3, digits: 5, seed: 3 },
  ...{ template: "paper", carryState: true, stopWidth: 0 },
});
const CURES: readonly CureSpec[] = [
  { kind: "reduced", retention: 0.99, insertion: 0.5 },
  { kind: "normalised", multiplier: 0.5, referenceTokens: 300, everyTokens: 64 },
  { kind: "window", tokens: 64, everyTokens: 32 },
  { kind: "longMamba", dtScale: 0.2 },
];
const NEUTRAL: readonly CureSpec[] = [
  { kind: "reduced", retention: 1, insertion: 1 },
  { kind: "normalised", multiplier: 1e6, referenceTokens: 64, everyTokens: 64 },
  { kind: "window", tokens: 8192, everyTokens: 64 },
  { kind: "longMamba", dtScale: 1 },
];

describe("memory of states", () => {
  it("counts what a window keeps of every lane, and bounds lanes and snapshots by it", () => {
    const { spec: large } = validateJobSpec({ model: { preset: "mamba2-130m" }, data: { passkey: {} }, train: { steps: 1 } });
    const window: CureSpec = { kind: "window", tokens: 8192, everyTokens: 128 };
    assert.equal(laneBytes(large.model, window), 66 * laneBytes(large.model, NO_CURE));
    assert.deepEqual([mostLanes(large.model, NO_CURE), mostLanes(spec.model, window)], [16, 16]);
    const lanes = mostLanes(large.model, window);
    assert.ok(lanes >= 1 && lanes * laneBytes(large.model, window) <= 2 ** 31);
    assert.equal(mostSnapshots(large.model, window), 1);
    assert.equal(mostSnapshots(spec.model, NO_CURE), 32);
  });
});

async function hasCpuEngine(): Promise<boolean> {
  return (await availableEngines()).some(({ name, reason }) => name === "cpu" && reason === undefined);
}

describe("cures in evaluations (cpu)", () => {
  let engine: Engine;
  let subjects: Subjects;
  before(async function () {
    if (!(await hasCpuEngine())) return this.skip();
    engine = await createEngine("cpu", { model: spec.model, precision: "f32", threads: 1 });
    const random = randomStream(5, "weights");
    engine.writeParameters(initialParameters(spec.model, 1).map((value) => value * (1 + 0.5 * random.normal())));
    subjects = new Subjects(engine, byteTokenizer(), 64);
  });
  after(() => subjects?.close());

  const evaluate = (cell: Cell) => taskOf(cell).evaluate(subjects.of(cell), cell);
  const lossesOf = (cell: LossCell) => (evaluate(cell) as LossCellResult).losses;
  const answersOf = (cell: PasskeyCell) => (evaluate(cell) as PasskeyCellResult).answers;

  it("change the losses, each in its own way, and the same way each time", () => {
    const curves = [NO_CURE, ...CURES].map((cure) => JSON.stringify(lossesOf(lossCell(cure))));
    assert.equal(new Set(curves).size, curves.length);
    assert.deepEqual(
      [NO_CURE, ...CURES].reverse().map((cure) => JSON.stringify(lossesOf(lossCell(cure)))),
      curves.reverse(),
    );
  });

  it("change nothing at neutral settings, to the bit", () => {
    for (const cure of NEUTRAL) {
      assert.deepEqual(lossesOf(lossCell(cure)), lossesOf(lossCell(NO_CURE)), cure.kind);
      assert.deepEqual(answersOf(passkeyCell(cure)), answersOf(passkeyCell(NO_CURE)), cure.kind);
    }
  });

  it("share no states: passkeys are answered as if no other cure had been there", () => {
    const inTurn = [NO_CURE, ...CURES, NO_CURE].map((cure) => answersOf(passkeyCell(cure)));
    for (const [index, cure] of [NO_CURE, ...CURES].entries()) {
      const alone = new Subjects(engine, byteTokenizer(), 64);
      const cell = passkeyCell(cure);
      assert.deepEqual((taskOf(cell).evaluate(alone.of(cell), cell) as PasskeyCellResult).answers, inTurn[index], cure.kind);
    }
    assert.deepEqual(inTurn.at(-1), inTurn[0]);
  });

  it("keep the model and its states between cells of one cure, and measure thresholds anew on another text", () => {
    const [, normalised] = CURES;
    const random = subjects.of(lossCell(normalised!));
    assert.equal(subjects.of({ ...lossCell(normalised!), firstPrompt: 4 } as LossCell).prefixes, random.prefixes);
    assert.notEqual(subjects.of(lossCell(normalised!, "newlines")).prefixes, random.prefixes);
  });

  it("set the thresholds of normalised by a text like the cell's own that is none of the evaluation's", () => {
    const cell = passkeyCell(CURES[1]!);
    const reference = taskOf(cell).reference(cell).prompt({ tokenizer: byteTokenizer() }, 300);
    const text = byteTokenizer().decode([...reference.read(0, 300)]);
    assert.match(text, /grass is green/);
    assert.equal(reference.read(0, 300).length, 300);
  });
});

describe("cures on the queue (cpu)", () => {
  let cluster: TestCluster;
  before(async function () {
    if (!(await hasCpuEngine())) return this.skip();
    cluster = await TestCluster.start();
  });
  after(() => cluster?.close());

  it("have cells and results of their own, and what is queued without one has the names it always had", async () => {
    const dir = join(cluster.dir, "cache");
    await mkdir(dir);
    const { redis } = cluster;
    const model = new ModelProcess();
    const options = {
      name: "eval",
      redis,
      checkpoints: new CheckpointCache(dir, cluster.tensors),
      tensors: cluster.tensors,
      model,
      threads: 1,
      logger,
    };
    const evaluator = new Evaluator({ ...options, results: new EvaluationResults(redis), engine: "cpu" });
    try {
      const digest = await cluster.publishCheckpoint("job-cures", 10, 6);
      const settings = { tokens: 1024, bucketTokens: 64, prompt: "random", seed: 2 } as const;
      const work = { jobId: "job-cures", step: 10, digest, settings, parts: [{ firstPrompt: 0, prompts: 2 }] };
      const ids = [await cluster.enqueueLoss(work)];
      for (const cure of CURES) ids.push(await cluster.enqueueLoss({ ...work, cure }));
      const losses: (string | undefined)[] = [];
      for (const id of ids) losses.push((await cluster.untilStatus(id, "done")).fields["losses"]);
      assert.equal(new Set(losses).size, 1 + CURES.length);
      assert.deepEqual((await redis.keys("segue:cell:*")).sort(), [
        `segue:cell:${digest}_loss_tokens-1024_bucket-64_random_seed-2_prompts-0-2`,
        ...["longmamba-0.2", "normalised-0.5-300-64", "reduced-0.99-0.5", "window-64-32"].map(
          (key) => `segue:cell:${digest}_loss_tokens-1024_bucket-64_random_seed-2_prompts-0-2+${key}`,
        ),
      ]);
    } finally {
      await evaluator.close(0);
      model.close();
    }
  });
});
