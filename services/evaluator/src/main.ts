import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { SegueError } from "@segue/core";
import { Tensors } from "@segue/protocol";
import {
  announceReady,
  commonSettings,
  connectClient,
  connectRedis,
  readSettings,
  runService,
  securityFromSettings,
  serveProcessMetrics,
  settings,
} from "@segue/runtime";
import { z } from "zod";
import { CheckpointCache } from "./checkpoint-cache.js";
import { Evaluator } from "./evaluator.js";
import { ModelProcess } from "./model-process.js";
import { EvaluationResults } from "./results.js";

/** For the running cell, after SIGTERM. */
const GRACE_MS = 5_000;

await runService(
  async ({ signal, logger }) => {
    const env = readSettings(
      z.object({
        ...commonSettings,
        SEGUE_COORDINATOR: settings.SEGUE_COORDINATOR.default("127.0.0.1:7070"),
        SEGUE_NAME: settings.SEGUE_NAME.default(`${hostname()}-${process.pid}`),
        SEGUE_ENGINE: settings.SEGUE_ENGINE.default("auto"),
        SEGUE_EVALUATION_LOCK_MS: settings.SEGUE_EVALUATION_LOCK_MS.optional(),
        SEGUE_THREADS: settings.SEGUE_THREADS.default(0),
        SEGUE_GPU: settings.SEGUE_GPU.default("all"),
        SEGUE_REDIS_TIMEOUT_MS: settings.SEGUE_REDIS_TIMEOUT_MS.optional(),
        REDIS_URL: settings.REDIS_URL.optional(),
      }),
    );
    if (env.REDIS_URL === undefined) {
      throw new SegueError("REDIS_URL_MISSING", "Set REDIS_URL to the Redis that the coordinator queues evaluations in.", {
        status: "FAILED_PRECONDITION",
      });
    }
    const security = securityFromSettings(env);
    const metrics = await serveProcessMetrics("evaluator", env.SEGUE_METRICS_LISTEN, security, signal);
    const redis = connectRedis(env.REDIS_URL, { logger, role: "worker", timeoutMs: env.SEGUE_REDIS_TIMEOUT_MS });
    const tensors = connectClient(Tensors, env.SEGUE_COORDINATOR, security);
    const cacheDir = await mkdtemp(join(tmpdir(), "segue-evaluator-"));
    const model = new ModelProcess();
    const evaluator = new Evaluator({
      name: env.SEGUE_NAME,
      redis,
      checkpoints: new CheckpointCache(cacheDir, tensors),
      tensors,
      model,
      results: new EvaluationResults(redis),
      engine: env.SEGUE_ENGINE,
      threads: env.SEGUE_THREADS,
      // It uses one GPU, whatever there is.
      gpu: env.SEGUE_GPU === "all" ? 0 : env.SEGUE_GPU,
      lockMs: env.SEGUE_EVALUATION_LOCK_MS,
      logger,
    });
    logger.info({ event: "waiting", coordinator: env.SEGUE_COORDINATOR }, "waiting for evaluations");
    announceReady("", env.SEGUE_READY_FD);
    try {
      if (!signal.aborted) await once(signal, "abort");
      await evaluator.close(GRACE_MS);
    } finally {
      model.close();
      tensors.close();
      redis.disconnect();
      await metrics?.close();
      await rm(cacheDir, { recursive: true, force: true });
    }
  },
  { service: "evaluator" },
);
