import { Redis, type RedisOptions } from "ioredis";
import type { Logger } from "./logger.js";

/**
 * producer: commands fail at once while Redis is away, so that a caller is never stuck. worker: for BullMQ's workers, whose blocking
 * commands wait for ever. reader: waits a little for a reconnect, then fails.
 */
export type RedisRole = "producer" | "worker" | "reader";

const ROLE_OPTIONS = {
  producer: { enableOfflineQueue: false, maxRetriesPerRequest: 1 },
  worker: { maxRetriesPerRequest: null },
  reader: { maxRetriesPerRequest: 5 },
} satisfies Record<RedisRole, RedisOptions>;

/** Connects in the background and again after every loss, for ever. Each outage is logged once. */
export function connectRedis(url: string, options: { logger: Logger; role: RedisRole }): Redis {
  const { logger, role } = options;
  const redis = new Redis(url, {
    ...ROLE_OPTIONS[role],
    connectionName: `segue-${role}`,
    retryStrategy: (attempt) => Math.min(attempt * 100, 2_000),
  });
  let away = false;
  redis.on("error", (error: Error) => {
    if (!away) logger.warn({ role, reason: error.message }, "Redis is away; trying again");
    away = true;
  });
  redis.on("ready", () => {
    if (away) logger.info({ role }, "Redis is back");
    away = false;
  });
  return redis;
}
