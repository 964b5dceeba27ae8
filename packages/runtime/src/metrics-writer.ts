import type { ChainableCommander, Redis } from "ioredis";
import type { Logger } from "./logger.js";

/** Field values; undefined ones are left out. */
export type Fields = Readonly<Record<string, string | number | undefined>>;

type Write = (pipeline: ChainableCommander) => void;

export interface MetricsWriterOptions {
  readonly flushMs?: number;
  /** Writes kept while Redis is slow or away; beyond, the oldest is dropped. */
  readonly maxPending?: number;
}

const CLOSE_MS = 2_000;

/**
 * Writes to Redis without making anybody wait: calls return at once, a pipeline goes out every 250 ms, and when Redis cannot keep up
 * the oldest writes are dropped and counted. Order is kept.
 */
export class MetricsWriter {
  readonly #redis: Redis;
  readonly #logger: Logger;
  readonly #maxPending: number;
  readonly #timer: NodeJS.Timeout;
  #pending: Write[] = [];
  #flushing: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #dropped = 0;
  #reportedDrops = 0;

  /** Takes a connection of role "producer"; the caller closes it after this writer. */
  constructor(redis: Redis, logger: Logger, options: MetricsWriterOptions = {}) {
    this.#redis = redis;
    this.#logger = logger;
    this.#maxPending = options.maxPending ?? 10_000;
    this.#timer = setInterval(() => void this.flush(), options.flushMs ?? 250);
    this.#timer.unref();
  }

  /** Writes given up so far. */
  get dropped(): number {
    return this.#dropped;
  }

  hash(key: string, fields: Fields): void {
    const values = definedFields(fields);
    if (values.length > 0) this.#add((pipeline) => pipeline.hset(key, ...values));
  }

  hashDelete(key: string, ...fields: string[]): void {
    if (fields.length > 0) this.#add((pipeline) => pipeline.hdel(key, ...fields));
  }

  /** Appends one entry to a stream of about maxLen entries. */
  stream(key: string, maxLen: number, fields: Fields): void {
    const values = definedFields(fields);
    if (values.length > 0) this.#add((pipeline) => pipeline.xadd(key, "MAXLEN", "~", maxLen, "*", ...values));
  }

  zadd(key: string, score: number, member: string): void {
    this.#add((pipeline) => pipeline.zadd(key, score, member));
  }

  /** Removes the members with this score. */
  zremByScore(key: string, score: number): void {
    this.#add((pipeline) => pipeline.zremrangebyscore(key, score, score));
  }

  publish(channel: string, message: string): void {
    this.#add((pipeline) => pipeline.publish(channel, message));
  }

  /** Sends what is pending, unless Redis is away or a pipeline is under way. Never rejects. */
  flush(): Promise<void> {
    if (!this.#flushing && this.#pending.length > 0 && this.#redis.status === "ready") {
      const writes = this.#pending;
      this.#pending = [];
      this.#flushing = this.#send(writes).finally(() => {
        this.#flushing = undefined;
      });
    }
    return this.#flushing ?? Promise.resolve();
  }

  /** A last flush, bounded in time; what cannot be written is dropped. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#finish();
    return this.#closing;
  }

  async #finish(): Promise<void> {
    clearInterval(this.#timer);
    let timer: NodeJS.Timeout | undefined;
    const expired = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, CLOSE_MS);
    });
    // The first wait is for a pipeline that was under way already.
    await Promise.race([this.flush().then(() => this.flush()), expired]);
    clearTimeout(timer);
    this.#drop(this.#pending.length);
    this.#pending = [];
  }

  #add(write: Write): void {
    if (this.#closing) {
      this.#drop(1);
      return;
    }
    this.#pending.push(write);
    const excess = this.#pending.length - this.#maxPending;
    if (excess <= 0) return;
    // In bulk, since shifting a long array one by one is slow.
    const surplus = excess + Math.floor(this.#maxPending / 10);
    this.#pending.splice(0, surplus);
    this.#drop(surplus);
  }

  async #send(writes: readonly Write[]): Promise<void> {
    const pipeline = this.#redis.pipeline();
    for (const write of writes) write(pipeline);
    try {
      const results = (await pipeline.exec()) ?? [];
      this.#drop(results.filter(([error]) => error).length, results.find(([error]) => error)?.[0]);
    } catch (error) {
      this.#drop(writes.length, error);
    }
    if (this.#dropped === this.#reportedDrops) return;
    this.#logger.warn({ dropped: this.#dropped }, "metrics were dropped: Redis was away or too slow");
    this.#reportedDrops = this.#dropped;
  }

  #drop(count: number, reason?: unknown): void {
    this.#dropped += count;
    if (count > 0 && reason) this.#logger.debug({ err: reason }, "Redis refused writes");
  }
}

function definedFields(fields: Fields): (string | number)[] {
  return Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [name, value]));
}
