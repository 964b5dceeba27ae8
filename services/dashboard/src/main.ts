import { once } from "node:events";
import { SegueError } from "@segue/core";
import {
  announceReady,
  commonSettings,
  connectRedis,
  hostOf,
  isLoopback,
  readSettings,
  runService,
  securityFromSettings,
  settings,
} from "@segue/runtime";
import { z } from "zod";
import { startDashboard } from "./server.js";

await runService(
  async ({ signal, logger }) => {
    const env = readSettings(
      z.object({
        ...commonSettings,
        SEGUE_LISTEN: settings.SEGUE_LISTEN.default("127.0.0.1:7080"),
        SEGUE_REDIS_TIMEOUT_MS: settings.SEGUE_REDIS_TIMEOUT_MS.optional(),
        REDIS_URL: settings.REDIS_URL.optional(),
      }),
    );
    if (env.REDIS_URL === undefined) {
      throw new SegueError("REDIS_URL_MISSING", "Set REDIS_URL to the Redis that the coordinator writes to.", {
        status: "FAILED_PRECONDITION",
      });
    }
    const security = securityFromSettings(env);
    if (!isLoopback(hostOf(env.SEGUE_LISTEN)) && !security.tls?.key) {
      logger.warn(
        "the dashboard is reachable from other machines over plain HTTP: put a proxy with TLS in front, or set SEGUE_TLS_CERT",
      );
    }
    const redis = connectRedis(env.REDIS_URL, { logger, role: "producer", timeoutMs: env.SEGUE_REDIS_TIMEOUT_MS });
    try {
      const dashboard = await startDashboard({ listen: env.SEGUE_LISTEN, redis, logger, ...security });
      logger.info({ url: dashboard.url }, "the dashboard is open");
      announceReady(dashboard.address, env.SEGUE_READY_FD);
      if (!signal.aborted) await once(signal, "abort");
      await dashboard.close();
    } finally {
      redis.disconnect();
    }
  },
  { service: "dashboard" },
);
