import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import {
  byteTokenizer,
  decodeSafetensors,
  NO_CURE,
  packStates,
  positionPrompt,
  randomStream,
  summariseStates,
  tensorToFloat32,
  validateJobSpec,
  type CureSpec,
  type StateSummary,
} from "@segue/core";
import { availableEngines, createEngine, effectiveRemembrance, initialParameters, traceStates, type Engine } from "@segue/engine";
import { redisKeys } from "@segue/runtime";
import { CheckpointCache } from "../src/checkpoint-cache.js";
import type { Corpus } from "../src/corpus.js";
import { Evaluator } from "../src/evaluator.js";
import { ModelProcess } from "../src/model-process.js";
import { EvaluationResults } from "../src/results.js";
import { Subjects } from "../src/subjects.js";
import { effectiveRemembranceTask, type RemembranceCell, type RemembranceCellResult } from "../src/tasks/effective-remembrance.js";
import { evaluateLossCell, type LossCell } from "../src/tasks/loss-by-position.js";
import { stateStatisticsTask, type StatesCell, type StatesCellResult } from "../src/tasks/state-statistics.js";
import { REFERENCE_SEED } from "../src/tasks/task.js";
import { logger, TestCluster } from "./cluster.js";

const { spec } = validateJobSpec({
  model: { layers: 2, dModel: 32, headDim: 16, dState: 16, chunk: 64 },
  data: { passkey: {} },
  train: { steps: 1 },
});
const tokenizer = byteTokenizer();
const ids = { jobId: "job", step: 1, digest: "ab".repeat(32), evaluationId: "job_1_e", cure: NO_CURE };
const statesCell: StatesCell = {
  ...{ ...ids, task: "stateStatistics", tokens: 500, everyTokens: 64, histogramTokens: [100, 500] },
  ...{ prompt: "random", seed: 3, trainTokens: 256 },
};
const remembranceCell: RemembranceCell = {
  ...{ ...ids, task: "effectiveRemembrance", tokens: 300, starts: [0, 100, 299], prompt: "random", seed: 3 },
  ...{ firstPrompt: 2, prompts: 3 },
};
const text = (seed: number, index: number, tokens: number): Corpus[number] => {
  const random = randomStream(seed, "text", index);
  return { seed, index, tokens, tokens_T: Int32Array.from({ length: tokens }, () => 97 + random.below(20)) };
};

describe("tasks over long prompts (cpu)", () => {
  let engine: Engine;
  let subjects: Subjects;
  before(async function () {
    const offers = await availableEngines();
    if (!offers.some(({ name, reason }) => name === "cpu" && reason === undefined)) return this.skip();
    engine = await createEngine("cpu", { model: spec.model, precision: "f32", threads: 1 });
    const random = randomStream(5, "weights");
    engine.writeParameters(initialParameters(spec.model, 1).map((value) => value * (1 + 0.5 * random.normal())));
    subjects = new Subjects(engine, tokenizer, 64);
  });
  after(() => subjects?.close());

  it("trace the state of the cell's prompt, tell how far they are, and pack it with what was read", () => {
    const progress: number[] = [];
    const { summary, file, tokens } = stateStatisticsTask.evaluate(subjects.of(statesCell), statesCell, (done) =>
      progress.push(done),
    );
    const { read } = positionPrompt(tokenizer, { ...statesCell, prompt: "random" }, 0);
    const samples = [...traceStates(engine, read, statesCell)];
    assert.deepEqual(summary, summariseStates(samples, 256));
    const metadata = { prompt: "random", seed: "3", cure: '{"kind":"none"}' };
    assert.deepEqual(Buffer.from(file!), Buffer.from(packStates(spec.model, samples, metadata)));
    assert.deepEqual([progress.at(0), progress.at(-1), tokens], [64, 500, 500]);
  });

  it("trace a cured model: a reduced retention is in what is left of the beginning", () => {
    const retention = (cure: CureSpec): Float32Array => {
      const cell = { ...statesCell, cure };
      const { file } = stateStatisticsTask.evaluate(subjects.of(cell), cell);
      return tensorToFloat32(decodeSafetensors(file!).get("input.retention")!);
    };
    const plain = retention(NO_CURE);
    const reduced = retention({ kind: "reduced", retention: 0.99, insertion: 1 });
    // The first layer's inputs are the same: in 64 tokens only the cure's own part differs.
    const known = [0, 1, 2, 3].filter((head) => plain[head]! > 1e-30);
    assert.ok(known.length > 0);
    for (const head of known) assert.ok(Math.abs(reduced[head]! / plain[head]! / 0.99 ** 64 - 1) < 1e-3);
  });

  it("measure remembrance of each prompt of the cell, on the average", () => {
    const found = effectiveRemembranceTask.evaluate(subjects.of(remembranceCell), remembranceCell);
    const prompts = [2, 3, 4].map((index) => positionPrompt(tokenizer, { ...remembranceCell, prompt: "random" }, index));
    const options = { tokens: 300, starts: [0, 100, 299], segmentTokens: 1000 };
    const each = effectiveRemembrance(engine, 3, (lane, from, count) => prompts[lane]!.read(from, count), options);
    each.forEach((distances, start) => {
      const mean = distances.reduce((sum, distance) => sum + distance / 3, 0);
      assert.ok(Math.abs(found.distances[start]! - mean) < 1e-5);
    });
    assert.equal(found.distances[0], 0);
    assert.equal(found.tokens, 3 * (300 + 200 + 1));
    assert.equal(effectiveRemembranceTask.size(remembranceCell), found.tokens);
  });

  it("average remembrance over all prompts, whichever cell is there first", () => {
    const part = (firstPrompt: number, prompts: number, distances: (number | null)[]): RemembranceCellResult => ({
      ...{ firstPrompt, prompts, distances, ms: 1, tokens: 1 },
    });
    const closing = { task: "effectiveRemembrance", jobId: "j", evaluationId: "e" } as const;
    const parts = [part(0, 3, [0, 0.4, 0.1]), part(3, 1, [0, 0.8, null])];
    assert.deepEqual(effectiveRemembranceTask.close(closing, parts).fields, { distances: "[0,0.5,null]" });
    assert.deepEqual(effectiveRemembranceTask.close(closing, parts.toReversed()).fields, { distances: "[0,0.5,null]" });
  });

  it("read prompts of the corpus, one token further where there are labels, and another for the cure's thresholds", () => {
    const cure: CureSpec = { kind: "normalised", multiplier: 0.5, referenceTokens: 200, everyTokens: 64 };
    const cell: RemembranceCell = { ...remembranceCell, prompt: "corpus", cure };
    const texts = effectiveRemembranceTask.texts!(cell);
    assert.deepEqual(texts, [
      ...[2, 3, 4].map((index) => ({ seed: 3, index, tokens: 300 })),
      { seed: REFERENCE_SEED, index: 0, tokens: 200 },
    ]);
    const corpus = texts.map(({ seed, index, tokens }) => text(seed, index, tokens));
    const { distances } = effectiveRemembranceTask.evaluate(subjects.of(cell, corpus), cell);
    assert.equal(distances[0], 0);
    assert.ok(distances[2]! > 0);
    assert.throws(() => effectiveRemembranceTask.evaluate(subjects.of(cell), cell), /was not read/);

    const loss: LossCell = {
      ...{ ...ids, task: "lossByPosition", firstPrompt: 0, prompts: 1, tokens: 100, bucketTokens: 100, prompt: "corpus", seed: 1 },
    };
    const own = text(1, 0, 101);
    const states = engine.createStates(1);
    const whole = engine.score(
      { lanes: 1, tokens: 100, tokens_BT: own.tokens_T.slice(0, 100), labels_BT: own.tokens_T.slice(1) },
      states,
    );
    engine.freeStates(states);
    const mean = whole.reduce((sum, value) => sum + value / 100, 0);
    assert.ok(Math.abs(evaluateLossCell({ engine, tokenizer, corpus: [own] }, loss).losses[0]! - mean) < 1e-5);
  });

  it("are different work where anything differs that the result depends on", () => {
    const others = [
      { tokens: 501 },
      { everyTokens: 65 },
      { histogramTokens: [100] },
      { prompt: "corpus" },
      { seed: 4 },
      { trainTokens: 255 },
    ];
    const names = others.map((change) => stateStatisticsTask.work({ ...statesCell, ...change } as StatesCell));
    assert.equal(new Set([...names, stateStatisticsTask.work(statesCell)]).size, 7);
    const changes = [{ tokens: 301 }, { starts: [0, 100] }, { prompt: "corpus" }, { seed: 4 }, { firstPrompt: 0 }, { prompts: 2 }];
    const works = changes.map((change) => effectiveRemembranceTask.work({ ...remembranceCell, ...change } as RemembranceCell));
    assert.equal(new Set([...works, effectiveRemembranceTask.work(remembranceCell)]).size, 7);
  });
});

describe("state statistics in the queue", () => {
  let cluster: TestCluster;
  before(async () => (cluster = await TestCluster.start()));
  after(() => cluster.close());

  it("are read from the coordinator's documents, packed beside the results for a time, and evaluated again when that is over", async () => {
    const digest = await cluster.publishCheckpoint("job-s", 1, 1);
    const own = text(5, 0, 200);
    const bytes = new Uint8Array(own.tokens_T.buffer);
    cluster.registry.publish("job/job-s/corpus/5/0/200", { dtype: "i32", shape: [200], data: bytes });
    const dir = join(cluster.dir, "cache");
    await mkdir(dir);
    const { redis, tensors } = cluster;
    const model = new ModelProcess();
    const options = { name: "eval", redis, tensors, checkpoints: new CheckpointCache(dir, tensors), model, threads: 1, logger };
    const evaluator = new Evaluator({ ...options, results: new EvaluationResults(redis), engine: "auto" });
    try {
      const settings = { everyTokens: 64, histogramTokens: [200], trainTokens: 256 };
      const work = { task: "stateStatistics", ...settings, prompt: "corpus", seed: 5, tokens: 200 };
      const done = async (name: string): Promise<{ ms: number; fileKey: string; summary: StateSummary }> => {
        const id = await cluster.enqueueOne({ jobId: "job-s", step: 1, digest, name, work });
        const { fields, cells } = await cluster.untilStatus(id, "done");
        const { ms } = cells["trace"] as unknown as StatesCellResult;
        return { ms, fileKey: fields["fileKey"]!, summary: JSON.parse(fields["summary"]!) as StateSummary };
      };
      const first = await done("first");
      assert.equal(first.fileKey, redisKeys.cellFile(digest, stateStatisticsTask.work({ ...statesCell, ...work } as StatesCell)));
      assert.ok((await redis.ttl(first.fileKey)) > 24 * 3600);
      const tensorsOf = async () => decodeSafetensors((await redis.getBuffer(first.fileKey))!);
      const file = await tensorsOf();
      assert.equal(file.get("ssm.mean")!.shape[0], 4);
      assert.equal(first.summary.samples, 4);

      // What is known is not evaluated again, what has gone is.
      await redis.expire(first.fileKey, 100);
      assert.equal((await done("again")).ms, first.ms);
      assert.ok((await redis.ttl(first.fileKey)) > 24 * 3600);
      await redis.del(first.fileKey);
      assert.equal((await done("anew")).fileKey, first.fileKey);
      assert.deepEqual((await tensorsOf()).get("ssm.mean"), file.get("ssm.mean"));
    } finally {
      await evaluator.close(0);
      model.close();
    }
  });
});
