import { once } from "node:events";
import { join } from "node:path";
import {
  announceReady,
  commonSettings,
  connectRedis,
  readSettings,
  runService,
  securityFromSettings,
  serveProcessMetrics,
  settings,
} from "@segue/runtime";
import { z } from "zod";
import { startCoordinator, type Coordinator } from "./coordinator.js";
import { createDataSource } from "./documents/data-source.js";
import { serviceGauges } from "./metrics/service-gauges.js";

await runService(
  async ({ signal, logger }) => {
    const env = readSettings(
      z.object({
        ...commonSettings,
        SEGUE_LISTEN: settings.SEGUE_LISTEN.default("127.0.0.1:7070"),
        SEGUE_ADVERTISE: settings.SEGUE_ADVERTISE.optional(),
        SEGUE_STORE: settings.SEGUE_STORE.default(".segue/store"),
        SEGUE_CHECKPOINTS: settings.SEGUE_CHECKPOINTS.optional(),
        SEGUE_S3_ENDPOINT: settings.SEGUE_S3_ENDPOINT.optional(),
        SEGUE_CHECKPOINTS_TIMEOUT_MS: settings.SEGUE_CHECKPOINTS_TIMEOUT_MS.optional(),
        SEGUE_REDIS_TIMEOUT_MS: settings.SEGUE_REDIS_TIMEOUT_MS.optional(),
        SEGUE_HEARTBEAT_MS: settings.SEGUE_HEARTBEAT_MS.default(750),
        REDIS_URL: settings.REDIS_URL.optional(),
      }),
    );
    const security = securityFromSettings(env);
    if (env.REDIS_URL === undefined) {
      logger.warn({ event: "noRedis" }, "REDIS_URL is not set: training goes on, but without metrics, dashboard and evaluations");
    }
    const timeoutMs = env.SEGUE_REDIS_TIMEOUT_MS;
    const redis = env.REDIS_URL === undefined ? undefined : connectRedis(env.REDIS_URL, { logger, role: "producer", timeoutMs });
    const storeLost = new AbortController();
    let coordinator: Coordinator | undefined;
    const gauges = serviceGauges(() => coordinator ?? { jobs: [], workers: [] });
    const metrics = await serveProcessMetrics("coordinator", env.SEGUE_METRICS_LISTEN, security, signal, gauges);
    try {
      coordinator = await startCoordinator({
        listen: env.SEGUE_LISTEN,
        advertise: env.SEGUE_ADVERTISE,
        store: env.SEGUE_STORE,
        checkpoints: env.SEGUE_CHECKPOINTS,
        s3Endpoint: env.SEGUE_S3_ENDPOINT,
        checkpointsTimeoutMs: env.SEGUE_CHECKPOINTS_TIMEOUT_MS,
        heartbeatMs: env.SEGUE_HEARTBEAT_MS,
        data: createDataSource({ baseDir: process.cwd(), cacheDir: join(env.SEGUE_STORE, "cache") }),
        security,
        logger,
        redis,
        onStoreLost: (error) => storeLost.abort(error),
      });
      logger.info({ event: "listening", address: coordinator.address, store: env.SEGUE_STORE }, "the coordinator is ready");
      announceReady(coordinator.address, env.SEGUE_READY_FD);
      const stop = AbortSignal.any([signal, storeLost.signal]);
      if (!stop.aborted) await once(stop, "abort");
      await coordinator.close();
      // Another process works on the store now: ending with an error tells the supervisor that this was no orderly stop.
      if (storeLost.signal.aborted) throw storeLost.signal.reason;
    } finally {
      redis?.disconnect();
      await metrics?.close();
    }
  },
  { service: "coordinator" },
);
