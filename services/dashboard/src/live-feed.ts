import type { Logger } from "@segue/runtime";
import { SegueError } from "@segue/core";
import { toColumns } from "./series.js";
import type { DashboardStore, StreamCursor } from "./store.js";

/** One message to a browser. `topic` is what changed; `payload` its whole new value, except for `points`, which are new ones only. */
export interface LiveEvent {
  readonly topic:
    "redis" | "jobs" | "jobCounts" | "workers" | "evaluators" | "queues" | "job" | "evaluations" | "losses" | "points";
  readonly payload: unknown;
}

export interface Subscription {
  /** The job whose details are wanted besides the overview. */
  readonly jobId?: string | undefined;
  readonly send: (event: LiveEvent) => void;
}

interface WatchedJob {
  /** Last sent payload of each topic, as JSON. */
  readonly sent: Map<string, LiveEvent & { json: string }>;
  cursor?: StreamCursor;
}

const DEFAULT_INTERVAL_MS = 1_000;

/**
 * Reads Redis once per interval for all browsers together, and sends what changed. It reads nothing while nobody watches, and details
 * only of the jobs somebody looks at.
 */
export class LiveFeed {
  readonly #store: DashboardStore;
  readonly #logger: Logger;
  readonly #intervalMs: number;
  readonly #subscriptions = new Set<Subscription>();
  readonly #watched = new Map<string, WatchedJob>();
  readonly #sent: WatchedJob["sent"] = new Map();
  #timer: NodeJS.Timeout | undefined;
  #reading: Promise<void> | undefined;
  #closed = false;

  constructor(store: DashboardStore, logger: Logger, options: { intervalMs?: number } = {}) {
    this.#store = store;
    this.#logger = logger;
    this.#intervalMs = options.intervalMs ?? DEFAULT_INTERVAL_MS;
  }

  get subscribers(): number {
    return this.#subscriptions.size;
  }

  /** Sends everything known so far, then every change, until the returned function is called. */
  subscribe(subscription: Subscription): () => void {
    const { jobId, send } = subscription;
    if (this.#subscriptions.size === 0) this.#forget();
    this.#subscriptions.add(subscription);
    if (jobId !== undefined && !this.#watched.has(jobId)) this.#watched.set(jobId, { sent: new Map() });
    for (const event of this.#sent.values()) send({ topic: event.topic, payload: event.payload });
    for (const event of this.#watched.get(jobId ?? "")?.sent.values() ?? []) send({ topic: event.topic, payload: event.payload });
    this.#wake();
    return () => {
      this.#subscriptions.delete(subscription);
      if (jobId !== undefined && ![...this.#subscriptions].some((other) => other.jobId === jobId)) this.#watched.delete(jobId);
    };
  }

  /** Ends reading; sends nothing any more. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#subscriptions.clear();
    await this.#reading;
  }

  #wake(): void {
    if (this.#closed || this.#reading) return;
    clearTimeout(this.#timer);
    this.#reading = this.#read().finally(() => {
      this.#reading = undefined;
      if (this.#closed || this.#subscriptions.size === 0) return;
      this.#timer = setTimeout(() => this.#wake(), this.#intervalMs);
    });
  }

  /** What was sent when the last browser left is stale for the next one. */
  #forget(): void {
    this.#sent.clear();
    this.#watched.clear();
  }

  async #read(): Promise<void> {
    try {
      const { jobs, counts, workers, evaluators, queues } = await this.#store.overview();
      this.#publish({ topic: "redis", payload: { up: true } });
      this.#publish({ topic: "jobCounts", payload: counts });
      this.#publish({ topic: "jobs", payload: jobs });
      this.#publish({ topic: "workers", payload: workers });
      this.#publish({ topic: "evaluators", payload: evaluators });
      this.#publish({ topic: "queues", payload: queues });
      for (const [jobId, watched] of this.#watched) await this.#readJob(jobId, watched);
    } catch (error) {
      if (!(error instanceof SegueError)) this.#logger.error({ err: error }, "reading Redis failed");
      const reason = error instanceof SegueError ? error.message : "Redis holds something unexpected; see the dashboard's log.";
      this.#publish({ topic: "redis", payload: { up: false, reason } });
    }
  }

  async #readJob(jobId: string, watched: WatchedJob): Promise<void> {
    const [detail, { heatMaps, losses }] = await Promise.all([this.#store.job(jobId), this.#store.evaluations(jobId)]);
    this.#publish({ topic: "job", payload: detail ?? null }, jobId);
    if (detail === undefined) return;
    this.#publish({ topic: "evaluations", payload: heatMaps }, jobId);
    this.#publish({ topic: "losses", payload: losses }, jobId);
    const { attempt } = detail.job;
    if (watched.cursor === undefined) {
      watched.cursor = await this.#store.streamEnd(jobId, attempt);
    } else if (watched.cursor.attempt !== attempt) {
      watched.cursor = { attempt, lastId: "0-0" };
    }
    const { points, cursor } = await this.#store.pointsAfter(jobId, watched.cursor);
    watched.cursor = cursor;
    if (points.length > 0) this.#deliver({ topic: "points", payload: toColumns(points) }, jobId);
  }

  #publish(event: LiveEvent, jobId?: string): void {
    const sent = jobId === undefined ? this.#sent : this.#watched.get(jobId)?.sent;
    const json = JSON.stringify(event.payload);
    if (sent === undefined || sent.get(event.topic)?.json === json) return;
    sent.set(event.topic, { ...event, json });
    this.#deliver(event, jobId);
  }

  #deliver(event: LiveEvent, jobId?: string): void {
    for (const subscription of this.#subscriptions) {
      if (jobId === undefined || subscription.jobId === jobId) subscription.send(event);
    }
  }
}
