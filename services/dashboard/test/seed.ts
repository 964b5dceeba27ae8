import { NO_CURE, type CureSpec } from "@segue/core";
import { evaluationId, redisKeys } from "@segue/runtime";
import type { Redis } from "ioredis";

/** A job's id and name as the tests use them; the name tries to be markup. */
export const JOB_ID = "job-7f3a";
export const JOB_NAME = `passkey <img src=x onerror="document.title='owned'">`;

export const LENGTHS = [256, 512, 1024, 2048, 4096];
export const DEPTHS = [0, 0.25, 0.5, 0.75, 1];
const PACES = {
  alpha: { shardMs: 5.1, straggler: false, stepTimes: { computeMs: 20.4, exchangeMs: 12.6, restMs: 0.4 } },
  beta: { shardMs: 10.7, straggler: true, stepTimes: { computeMs: 32.1, exchangeMs: 0.9, restMs: 0.4 } },
};
const DIGEST = "3b7c1d9e".repeat(8);

/** Writes what coordinator and evaluator would have written for a job that runs: docs/reference/redis.md. */
export async function seedCluster(redis: Redis, options: { steps?: number } = {}): Promise<void> {
  const { steps = 300 } = options;
  const now = Date.now();
  await redis.zadd(redisKeys.jobs, now - 600_000, "job-old", now - 120_000, JOB_ID);
  await redis.hset(redisKeys.job("job-old"), {
    name: "books-130m",
    phase: "SUCCEEDED",
    step: 1200,
    totalSteps: 1200,
    loss: 2.9134,
    workers: 0,
    attempt: 1,
    submittedAtMs: now - 600_000,
    updatedAtMs: now - 90_000,
  });
  await redis.hset(redisKeys.job(JOB_ID), {
    name: JOB_NAME,
    phase: "RUNNING",
    reason: "",
    step: steps,
    totalSteps: 800,
    tokens: steps * 16_384,
    totalTokens: 800 * 16_384,
    loss: 1.2345,
    tokensPerSecond: 48_210,
    learningRate: 0.003,
    gradientNorm: 0.42,
    workers: 2,
    members: JSON.stringify([
      { workerId: "worker-alpha", shards: 4, ...PACES.alpha },
      { workerId: "worker-beta", shards: 3, ...PACES.beta },
    ]),
    attempt: 2,
    etaSeconds: 171,
    engine: "cpu (AVX-512, 2 threads)",
    parameters: 1_234_567,
    checkpointStep: 200,
    checkpointDigest: DIGEST,
    documentsRead: 412,
    documentsDroppedShort: 3,
    submittedAtMs: now - 120_000,
    updatedAtMs: now,
    spec: JSON.stringify({
      name: JOB_NAME,
      seed: 1,
      tbptt: { segmentTokens: 256, segmentsPerChain: 0 },
      batch: { shards: 2, lanesPerShard: 8 },
    }),
  });
  // The second attempt goes on from step 150: what the first one recorded after it is void.
  await seedSteps(redis, 1, 1, Math.min(180, steps), 9);
  await seedSteps(redis, 2, 151, steps);
  for (const step of [100, 200]) {
    const checkpoint = { step, digest: DIGEST, createdAtMs: now - 40_000, sizeBytes: 14_900_000, loss: 2.1 };
    await redis.zadd(redisKeys.checkpoints(JOB_ID), step, JSON.stringify(checkpoint));
    await seedEvaluation(redis, step);
  }
  for (const [name, shards] of [
    ["alpha", [0, 1, 2, 3]],
    ["beta", [4, 5, 7]],
  ] as const) {
    const worker = {
      name,
      engine: "cpu",
      detail: "cpu (AVX-512, 2 threads)",
      jobId: JOB_ID,
      shards,
      step: steps,
      rssBytes: 412e6,
      state: "running",
      ...PACES[name],
      seenAtMs: now,
    };
    await redis.hset(redisKeys.workers, `worker-${name}`, JSON.stringify(worker));
  }
  const evaluator = { state: "evaluating", cell: "2,048 tokens, depth 50%", engine: "cpu (AVX-512, 2 threads)", seenAtMs: now };
  await redis.hset(redisKeys.evaluators, "evaluator-1", JSON.stringify(evaluator));
}

/** Gives a worker a GPU. @param load what it is doing, as far as its driver tells */
export async function seedGpu(redis: Redis, workerId: string, load: object): Promise<void> {
  const worker = JSON.parse((await redis.hget(redisKeys.workers, workerId)) ?? "{}") as object;
  const gpu = {
    ordinal: 0,
    name: "NVIDIA H200",
    uuid: `GPU-of-${workerId}`,
    driverVersion: "580.65.06",
    memoryBytes: 140 * 2 ** 30,
  };
  await redis.hset(redisKeys.workers, workerId, JSON.stringify({ ...worker, gpu: { ...gpu, ...load } }));
}

/** @param lossAt a fixed loss for telling attempts apart; default: a curve that falls */
export async function seedSteps(redis: Redis, attempt: number, first: number, last: number, lossAt?: number): Promise<void> {
  const pipeline = redis.pipeline();
  for (let step = first; step <= last; step++) {
    const loss = lossAt ?? 1.1 + 4.2 * Math.exp(-step / 70) + 0.12 * Math.sin(step * 1.7) * Math.exp(-step / 300);
    const fields = {
      step,
      loss,
      lr: 0.003 * Math.min(1, step / 40),
      gnorm: 0.4 + 1.5 / (1 + step / 12) + 0.1 * Math.cos(step),
      tps: 47_000 + 2_500 * Math.sin(step / 9),
      tokens: step * 16_384,
    };
    pipeline.xadd(redisKeys.train(JOB_ID, attempt), "*", ...Object.entries(fields).flat());
  }
  await pipeline.exec();
}

export const REDUCED: CureSpec = { kind: "reduced", retention: 0.9999, insertion: 0.75 };
export const WINDOW: CureSpec = { kind: "window", tokens: 8192, everyTokens: 128 };

/** Evaluations of step 200 with cures: loss by position with three, the last still queued, and a heat map with one. */
export async function seedCures(redis: Redis): Promise<void> {
  const bucketTokens = 1024;
  const curveOf = (lossAt: (position: number) => number): number[] =>
    Array.from({ length: 1024 }, (_, bucket) => Number(lossAt((bucket + 0.5) * bucketTokens).toPrecision(5)));
  const early = (position: number): number => 2.3 + 1.4 * Math.exp(-position / 1500);
  await seedLoss(
    redis,
    NO_CURE,
    curveOf((position) => early(position) + 7 / (1 + (60_000 / position) ** 3)),
    49_152,
  );
  await seedLoss(
    redis,
    REDUCED,
    curveOf((position) => early(position) + 0.35),
    null,
  );
  await seedLoss(redis, WINDOW, [], null);
  await seedEvaluation(redis, 200, REDUCED);
}

async function seedLoss(redis: Redis, cure: CureSpec, losses: readonly number[], firstPosition: number | null): Promise<void> {
  const id = evaluationId(JOB_ID, 200, "long-text", cure);
  const trainLoss = losses[0] ?? 0;
  const worst = Math.max(...losses.slice(16));
  const collapse = {
    ...{ collapsed: firstPosition !== null, trainLoss, worstRatio: worst / trainLoss },
    ...{ worstPosition: 1024 * losses.indexOf(worst), firstPosition },
  };
  await redis.zadd(redisKeys.evaluations(JOB_ID), 200, id);
  await redis.hset(redisKeys.evaluation(id), {
    ...{ jobId: JOB_ID, step: 200, name: "long-text", digest: DIGEST, kind: "lossByPosition", cure: JSON.stringify(cure) },
    ...{ tokens: 2 ** 20, bucketTokens: 1024, prompt: "random", prompts: 16, seed: 0, trainTokens: 16_384, collapseFactor: 2 },
    ...(losses.length > 0
      ? { status: "done", losses: JSON.stringify(losses), collapse: JSON.stringify(collapse) }
      : { status: "queued" }),
  });
}

async function seedEvaluation(redis: Redis, step: number, cure: CureSpec = NO_CURE): Promise<void> {
  const id = evaluationId(JOB_ID, step, "passkey", cure);
  const now = Date.now();
  await redis.zadd(redisKeys.evaluations(JOB_ID), step, id);
  await redis.hset(redisKeys.evaluation(id), {
    jobId: JOB_ID,
    step,
    name: "passkey",
    digest: DIGEST,
    cure: JSON.stringify(cure),
    lengths: JSON.stringify(LENGTHS),
    depths: JSON.stringify(DEPTHS),
    samples: 50,
    digits: 5,
    seed: 1,
    template: "paper",
    carryState: "true",
    cells: 25,
    status: step === 200 ? "running" : "done",
    createdAtMs: now,
    updatedAtMs: now,
  });
  for (const [row, depth] of DEPTHS.entries()) {
    for (const [column, length] of LENGTHS.entries()) {
      if (step === 200 && row * LENGTHS.length + column > 21) continue;
      const correct = Math.max(0, Math.min(50, Math.round(50 - column * (step === 200 ? 4 : 11) - (4 - row) * (column + 1) * 1.4)));
      const answers = [{ expected: "34847", decoded: correct === 50 ? " 34847" : " 34841 <b>" }];
      await redis.hset(
        redisKeys.cells(id),
        `${length}:${depth}`,
        JSON.stringify({ correct, samples: 50, ms: 1830 + column * 900, answers }),
      );
    }
  }
}
