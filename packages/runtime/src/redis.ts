import { Redis, type RedisOptions } from "ioredis";
import type { Logger } from "./logger.js";

/**
 * producer: commands fail at once while Redis is away, and soon when it does not answer, so that a caller is never stuck. worker: for
 * BullMQ's workers, whose commands wait for a Redis that is away for ever. reader: waits a little for a reconnect, then fails.
 */
export type RedisRole = "producer" | "worker" | "reader";

export interface RedisConnectionOptions {
  readonly logger: Logger;
  readonly role: RedisRole;
  /** How long an answer may take; a connection that is silent for longer is given up for a new one. @default 5000 */
  readonly timeoutMs?: number | undefined;
}

const TIMEOUT_MS = 5_000;
/** BullMQ's workers ask Redis to hold an answer back for up to 10 s while there is no work. */
const WORKER_TIMEOUT_MS = 30_000;

/** A Redis that keeps connections without answering gives no error by itself: every role has a limit. */
function roleOptions(role: RedisRole, timeoutMs: number): Omit<RedisOptions, "replyMapping"> {
  switch (role) {
    case "producer":
      return {
        enableOfflineQueue: false,
        maxRetriesPerRequest: 1,
        // Callers have been told that these failed.
        autoResendUnfulfilledCommands: false,
        commandTimeout: timeoutMs,
        socketTimeout: timeoutMs,
      };
    case "worker":
      return { maxRetriesPerRequest: null, socketTimeout: Math.max(WORKER_TIMEOUT_MS, timeoutMs) };
    case "reader":
      return { maxRetriesPerRequest: 5, commandTimeout: 2 * timeoutMs, socketTimeout: timeoutMs };
  }
}

/** Connects in the background and again after every loss, for ever. Each outage is logged once. */
export function connectRedis(url: string, { logger, role, timeoutMs = TIMEOUT_MS }: RedisConnectionOptions): Redis {
  const redis = new Redis(url, {
    ...roleOptions(role, timeoutMs),
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
