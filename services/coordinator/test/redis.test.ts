import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  cellJobId,
  connectRedis,
  createLogger,
  evaluationId,
  queueNames,
  redisKeys,
  startPrivateRedis,
  type PrivateRedis,
} from "@segue/runtime";
import { Queue } from "bullmq";
import { until } from "../../../test/helpers/patience.js";
import { SPEC, TestCluster } from "./helpers/cluster.js";
import { StepGate } from "./helpers/step-gate.js";

const EVALUATED = `${SPEC}evaluations:
  - name: short
    everyCheckpoints: 2
    passkey: { lengths: [512, 1024], depths: [0.25, 0.5], samples: 3, digits: 2 }
`;

describe("coordinator with Redis", () => {
  let folder: string;
  let server: PrivateRedis;
  let redis: ReturnType<typeof connectRedis>;
  let cluster: TestCluster;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "segue-redis-"));
    server = await startPrivateRedis({ dir: folder });
    redis = connectRedis(server.url, { logger: createLogger("test", "silent"), role: "producer" });
    await once(redis, "ready");
    cluster = await TestCluster.start({ redis });
  });
  after(async () => {
    await cluster.close();
    redis.disconnect();
    await server.close();
    await rm(folder, { recursive: true });
  });

  /** Old ones are deleted beside the training. */
  const untilCheckpoints = (jobId: string, steps: readonly number[]) => {
    let found: number[] = [];
    const areThese = async (): Promise<boolean> => {
      found = (await cluster.jobs.listCheckpoints({ jobId })).checkpoints.map(({ step }) => step);
      return found.join() === steps.join();
    };
    return until(areThese, () => `checkpoints ${steps.join(", ")}; there are ${found.join(", ")}`);
  };

  it("tells Redis what it does, queues evaluations, and keeps the checkpoints they need", async () => {
    const worker = await cluster.worker();
    const jobId = await cluster.submit(EVALUATED);
    const digest = await cluster.digest(jobId);
    // 12 is older than the two that are kept, but its heat map still waits for an evaluator.
    await untilCheckpoints(jobId, [24, 18, 12]);
    // The last is queued when the job is over.
    const evaluations = () => redis.zrange(redisKeys.evaluations(jobId), 0, "-1");
    await until(async () => (await evaluations()).length > 1, "the last evaluation");
    assert.deepEqual(await evaluations(), [evaluationId(jobId, 12, "short"), evaluationId(jobId, 24, "short")]);
    const registered = await redis.hgetall(redisKeys.evaluation(evaluationId(jobId, 24, "short")));
    assert.equal(registered["digest"], digest);
    assert.equal(registered["status"], "queued");
    assert.equal(registered["lengths"], "[512,1024]");

    const cells = new Queue(queueNames.cells, { connection: redis });
    const cell = {
      length: 1024,
      depth: 0.25,
      samples: 3,
      digits: 2,
      seed: 0,
      template: "paper" as const,
      carryState: true,
      stopWidth: 0,
    };
    const queued = await cells.getJob(cellJobId(evaluationId(jobId, 24, "short"), "len-1024_depth-0.25"));
    assert.deepEqual(queued?.data, { jobId, step: 24, digest, evaluationId: evaluationId(jobId, 24, "short"), ...cell });
    assert.equal(await cells.getWaitingCount(), 8);

    const again = await cluster.jobs.submitEvaluation({
      jobId,
      evaluation: { name: "short", passkey: { ...cell, lengths: [512, 1024], depths: [0.25, 0.5] } },
    });
    assert.deepEqual({ step: again.step, cells: again.cells }, { step: 24, cells: 4 });
    assert.equal(await cells.getWaitingCount(), 8);
    await cells.close();

    // Metrics leave in a pipeline from time to time.
    const told = async () => (await redis.hget(redisKeys.job(jobId), "phase")) === "SUCCEEDED";
    await until(told, "Redis to be told of the end");
    await until(async () => (await redis.hget(redisKeys.workers, worker.id))?.includes("idle"), "Redis to be told of the release");
    const hash = await redis.hgetall(redisKeys.job(jobId));
    assert.equal(hash["step"], "24");
    assert.equal(hash["checkpointDigest"], digest);
    assert.equal(await redis.xlen(redisKeys.train(jobId, 1)), 24);
    assert.equal(await redis.xlen(redisKeys.train(jobId, 1, 10)), 2);
    assert.deepEqual(await redis.zrange(redisKeys.jobs, 0, "-1"), [jobId]);
    const workers = Object.values(await redis.hgetall(redisKeys.workers)).map(
      (text) => JSON.parse(text) as Record<string, unknown>,
    );
    assert.deepEqual(
      workers.map(({ state, engine }) => ({ state, engine })),
      [{ state: "idle", engine: "cpu" }],
    );
  });

  it("keeps a checkpoint that an evaluation asked for later still needs, whatever its name", async () => {
    const gate = new StepGate(11);
    const worker = await cluster.worker({ onStep: gate.pass });
    const jobId = await cluster.submit(SPEC.replace("steps: 24", "steps: 60"));
    await cluster.until(jobId, ({ checkpointStep }) => checkpointStep >= 6);
    const passkey = { lengths: [512], depths: [0.5], samples: 1, digits: 2, seed: 0, template: "paper", carryState: true };
    const { step } = await cluster.jobs.submitEvaluation({ jobId, step: 6, evaluation: { name: "by-hand", passkey } });
    gate.open();
    await cluster.digest(jobId);
    await untilCheckpoints(jobId, [60, 54, step]);
    await worker.kill();
  });
});
