import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { byteTokenizer, NO_CURE, type CollapseVerdict } from "@segue/core";
import { createEngine, initialParameters } from "@segue/engine";
import { redisKeys } from "@segue/runtime";
import { CheckpointCache } from "../src/checkpoint-cache.js";
import { Evaluator } from "../src/evaluator.js";
import { ModelProcess } from "../src/model-process.js";
import { PrefixStates } from "../src/prefix-states.js";
import { EvaluationResults } from "../src/results.js";
import { evaluatePasskeyCell, passkeyTask } from "../src/tasks/passkey.js";
import { until } from "../../../test/helpers/patience.js";
import { logger, spec, TestCluster } from "./cluster.js";

interface Started {
  readonly evaluator: Evaluator;
  readonly model: ModelProcess;
}

describe("evaluator", () => {
  let cluster: TestCluster;
  const started: Started[] = [];
  let caches = 0;

  before(async () => {
    cluster = await TestCluster.start();
  });
  afterEach(async () => {
    for (const { evaluator, model } of started.splice(0)) {
      await evaluator.close(0);
      model.close();
    }
    await cluster.redis.flushall();
  });
  after(async () => {
    await cluster.close();
  });

  const newCache = async (kept?: number): Promise<{ dir: string; cache: CheckpointCache }> => {
    const dir = join(cluster.dir, `cache-${caches++}`);
    await mkdir(dir);
    return { dir, cache: new CheckpointCache(dir, cluster.tensors, kept) };
  };

  const start = async (name = "eval-1"): Promise<Started> => {
    const model = new ModelProcess();
    const { cache } = await newCache();
    const { redis } = cluster;
    const options = {
      name,
      redis,
      checkpoints: cache,
      tensors: cluster.tensors,
      model,
      results: new EvaluationResults(redis),
      threads: 1,
      logger,
    };
    const evaluator = new Evaluator({ ...options, engine: "tfjs" });
    started.push({ evaluator, model });
    return { evaluator, model };
  };

  it("evaluates every cell in a process of its own and closes the heat map", async () => {
    const digest = await cluster.publishCheckpoint("job-a", 10, 1);
    const cells = [
      { length: 400, depth: 0.5 },
      { length: 520, depth: 1 },
    ];
    const id = await cluster.enqueue({ jobId: "job-a", step: 10, digest, cells });
    await start();
    const done = await cluster.untilStatus(id, "done");
    assert.deepEqual(Object.keys(done.cells).sort(), ["400:0.5", "520:1"]);

    const engine = await createEngine("tfjs", { model: spec.model, precision: "f32", threads: 1 });
    engine.writeParameters(initialParameters(spec.model, 1));
    const work = {
      task: "passkey",
      cure: NO_CURE,
      jobId: "job-a",
      step: 10,
      digest,
      evaluationId: id,
      samples: 3,
      digits: 5,
      seed: 1,
      template: "paper",
      carryState: true,
      stopWidth: 0,
    } as const;
    const subject = { engine, tokenizer: byteTokenizer(), segmentTokens: 64, prefixes: new PrefixStates(engine) };
    const here = evaluatePasskeyCell(subject, { ...work, ...cells[0]! });
    engine.close();
    const { correct, samples, answers } = done.cells["400:0.5"]!;
    assert.deepEqual({ correct, samples, answers }, { correct: here.correct, samples: 3, answers: here.answers });
    const correctShare = Object.values(done.cells).reduce((sum, cell) => sum + cell!.correct / cell!.samples, 0) / 2;
    assert.equal(Number(done.fields["accuracy"]), correctShare);
    const status = JSON.parse((await cluster.redis.hget(redisKeys.evaluators, "eval-1")) ?? "{}") as { engine: string };
    assert.match(status.engine, /tfjs/);
  });

  it("gives a second evaluation of the same checkpoint the cells of the first without computing them again", async () => {
    const digest = await cluster.publishCheckpoint("job-b", 10, 2);
    const cells = [{ length: 400, depth: 0.5 }];
    await start();
    const first = await cluster.untilStatus(await cluster.enqueue({ jobId: "job-b", step: 10, digest, cells }), "done");
    const again = await cluster.untilStatus(
      await cluster.enqueue({ jobId: "job-b", step: 10, digest, cells, name: "again" }),
      "done",
    );
    assert.deepEqual(again.cells, first.cells, "to the millisecond it took");
  });

  it("scores prompts position by position and judges the collapse when all are there", async () => {
    const digest = await cluster.publishCheckpoint("job-l", 10, 6);
    const settings = { tokens: 4096, bucketTokens: 64, prompt: "random", seed: 2 } as const;
    const parts = [
      { firstPrompt: 0, prompts: 2 },
      { firstPrompt: 2, prompts: 1 },
    ];
    const id = await cluster.enqueueLoss({ jobId: "job-l", step: 10, digest, settings, parts });
    await start();
    const { fields, cells } = await cluster.untilStatus(id, "done");
    assert.deepEqual(Object.keys(cells).sort(), ["prompts:0:2", "prompts:2:1"]);
    const losses = JSON.parse(fields["losses"] ?? "") as number[];
    assert.equal(losses.length, 64);
    assert.ok(
      losses.every((loss) => loss > 4 && loss < 8),
      "of bytes that nobody can predict",
    );
    assert.equal((JSON.parse(fields["collapse"] ?? "") as CollapseVerdict).collapsed, false);
  });

  it("fails a cell that is no cell, or of a checkpoint that is gone, without another try", async () => {
    await start();
    const digest = await cluster.publishCheckpoint("job-c", 10, 3);
    const malformed = await cluster.enqueue({ jobId: "job-c", step: 10, digest, cells: [{ length: -1, depth: 0.5 }] });
    const { fields } = await cluster.untilStatus(malformed, "failed");
    assert.match(fields["reason"] ?? "", /not of this version's form|child/);
    const gone = await cluster.enqueue({ jobId: "job-c", step: 99, digest, cells: [{ length: 400, depth: 0.5 }] });
    await cluster.untilStatus(gone, "failed");
    const changed = await cluster.enqueue({
      jobId: "job-c",
      step: 10,
      digest: "0".repeat(64),
      cells: [{ length: 400, depth: 0.5 }],
    });
    await cluster.untilStatus(changed, "failed");
    const failed = await cluster.cells.getFailed();
    assert.equal(failed.length, 3);
    assert.deepEqual(
      failed.map(({ attemptsMade }) => attemptsMade),
      [1, 1, 1],
    );
    assert.ok(failed.some(({ failedReason }) => failedReason.includes("CHECKPOINT_CHANGED")));
  });

  it("starts the model's process anew when it dies, and evaluates the cell again", async () => {
    const digest = await cluster.publishCheckpoint("job-d", 10, 4);
    const { model } = await start();
    const id = await cluster.enqueue({ jobId: "job-d", step: 10, digest, cells: [{ length: 30_000, depth: 0.5 }] });
    const pid = await until(() => model.pid, "the model's process");
    process.kill(pid, "SIGKILL");
    const done = await cluster.untilStatus(id, "done");
    assert.equal(done.cells["30000:0.5"]!.samples, 3);
    assert.notEqual(model.pid, pid);
    assert.equal((await cluster.cells.getCompleted())[0]!.attemptsMade, 2);
  });

  it("hands a running cell back when it stops, for another evaluator, without counting an attempt", async () => {
    const digest = await cluster.publishCheckpoint("job-e", 10, 5);
    const first = await start("eval-1");
    const id = await cluster.enqueue({ jobId: "job-e", step: 10, digest, cells: [{ length: 30_000, depth: 0.5 }] });
    await until(() => first.model.pid, "the model's process");
    await first.evaluator.close(0);
    assert.equal(await cluster.cells.getActiveCount(), 0);
    assert.equal(await cluster.redis.hget(redisKeys.evaluators, "eval-1"), null);
    await start("eval-2");
    await cluster.untilStatus(id, "done");
    assert.equal((await cluster.cells.getCompleted())[0]!.attemptsMade, 1);
  });

  it("leaves a closed heat map closed when one of its cells runs twice", async () => {
    const results = new EvaluationResults(cluster.redis);
    const interval = { low: 0.1, high: 0.9 };
    const result = { length: 400, depth: 0.5, correct: 1, samples: 2, interval, ms: 5, tokens: 900, answers: [] };
    const ids = { task: "passkey", cure: NO_CURE, jobId: "j", step: 1, digest: "0".repeat(64), evaluationId: "e" } as const;
    const settings = { samples: 2, digits: 5, seed: 0, template: "paper", carryState: true, stopWidth: 0 } as const;
    const cell = { ...ids, ...settings, length: 400, depth: 0.5 };
    await results.cell(cell, result);
    assert.equal((await cluster.evaluation("e")).status, "running");
    const closing = { task: "passkey", evaluationId: "e", jobId: "j" } as const;
    await results.done(closing, [result], passkeyTask.close(closing, [result]));
    assert.equal((await cluster.evaluation("e")).fields["accuracy"], "0.5");
    await results.cell(cell, result);
    assert.equal((await cluster.evaluation("e")).status, "done");
  });

  describe("CheckpointCache", () => {
    const signal = new AbortController().signal;

    it("pulls a checkpoint once and forgets the least recently used", async () => {
      const { dir, cache } = await newCache(2);
      const ids = [];
      for (const step of [1, 2, 3])
        ids.push({ jobId: "job-f", step, digest: await cluster.publishCheckpoint("job-f", step, step) });
      const [one, two, three] = ids as [(typeof ids)[0], (typeof ids)[0], (typeof ids)[0]];
      const folder = await cache.folderOf(one, signal);
      assert.deepEqual((await readdir(folder)).sort(), ["config.json", "manifest.json", "model.safetensors"]);
      await cache.folderOf(two, signal);
      await new Promise((resolve) => setTimeout(resolve, 20));
      cluster.registry.removePrefix("job/job-f/checkpoint/1/");
      assert.equal(await cache.folderOf(one, signal), folder, "still there without the coordinator");
      await cache.folderOf(three, signal);
      assert.deepEqual((await readdir(dir)).sort(), [one.digest, three.digest].sort());
    });

    it("refuses a file that is not what the manifest says, and keeps nothing of it", async () => {
      const { dir, cache } = await newCache();
      const digest = await cluster.publishCheckpoint("job-g", 1, 1, { damage: true });
      await assert.rejects(cache.folderOf({ jobId: "job-g", step: 1, digest }, signal), { reason: "CHECKPOINT_DAMAGED" });
      assert.deepEqual(await readdir(dir), []);
    });
  });

  it("runs as a service: says when it is ready, and exits with 0 soon after SIGTERM in the middle of a cell", async () => {
    const digest = await cluster.publishCheckpoint("job-h", 10, 6);
    const main = fileURLToPath(new URL("../src/main.ts", import.meta.url));
    const service = spawn(process.execPath, ["--import=tsx", "--conditions=segue-source", main], {
      env: {
        ...process.env,
        REDIS_URL: cluster.privateRedis.url,
        SEGUE_COORDINATOR: cluster.server.address,
        SEGUE_ENGINE: "tfjs",
        SEGUE_NAME: "service",
        SEGUE_LOG_LEVEL: "silent",
        SEGUE_READY_FD: "3",
      },
      stdio: ["ignore", "inherit", "inherit", "pipe"],
    });
    const exited = once(service, "exit");
    try {
      const [line] = (await once(service.stdio[3]!, "data")) as [Buffer];
      assert.deepEqual(JSON.parse(line.toString()), { ready: true, address: "" });
      await cluster.enqueue({ jobId: "job-h", step: 10, digest, cells: [{ length: 60_000, depth: 0.5 }], samples: 64 });
      await until(async () => (await cluster.cells.getActiveCount()) === 1, "an active cell");
      service.kill("SIGTERM");
      assert.deepEqual(await exited, [0, null]);
      assert.equal(await cluster.cells.getActiveCount(), 0);
    } finally {
      service.kill("SIGKILL");
    }
  });
});
