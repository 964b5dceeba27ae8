import { SegueError } from "@segue/core";
import { mergeAttempts, queueNames, redisKeys } from "@segue/runtime";
import { Queue } from "bullmq";
import { ReplyError, type ChainableCommander, type Redis } from "ioredis";
import {
  chooseResolution,
  downsample,
  parseEntry,
  toColumns,
  type Resolution,
  type SeriesColumns,
  type SeriesPoint,
} from "./series.js";
import { lossView, type LossView } from "./loss-view.js";
import {
  checkpointView,
  evaluationView,
  evaluatorView,
  jobSpecView,
  jobView,
  memberViews,
  workerView,
  type CheckpointView,
  type EvaluationView,
  type EvaluatorView,
  type JobView,
  type MemberView,
  type WorkerView,
} from "./views.js";

/** Jobs of one queue by state. */
export type QueueCounts = Readonly<Record<string, number>>;

/** Some of the jobs, and how many there are. */
export interface JobList {
  /** Newest first. */
  readonly jobs: readonly JobView[];
  readonly counts: JobCounts;
}

export interface JobCounts {
  /** All jobs that Redis knows. */
  readonly total: number;
  /** Those that have succeeded, failed or been cancelled. */
  readonly finished: number;
  /** Finished jobs that come after the listed ones start behind this one; null: there are none. */
  readonly older: string | null;
}

export interface Overview extends JobList {
  readonly workers: readonly WorkerView[];
  readonly evaluators: readonly EvaluatorView[];
  readonly queues: Readonly<Record<string, QueueCounts>>;
}

export interface Evaluations {
  readonly heatMaps: readonly EvaluationView[];
  readonly losses: readonly LossView[];
}

export interface JobDetail {
  readonly job: JobView;
  readonly spec: unknown;
  readonly members: readonly MemberView[];
  /** Newest first. */
  readonly checkpoints: readonly CheckpointView[];
}

export interface Series extends SeriesColumns {
  /** Steps per recorded entry, before any further thinning. */
  readonly resolution: Resolution;
}

/** A place in the stream of an attempt; entries after it are new. */
export interface StreamCursor {
  readonly attempt: number;
  readonly lastId: string;
}

/** Finished jobs of one page. */
const FINISHED_PAGE = 200;
const FINISHED: readonly (string | null)[] = ["SUCCEEDED", "CANCELLED", "FAILED"];
const MAX_ATTEMPTS = 50;
const MAX_EVALUATIONS = 500;
const ANSWER_MS = 5_000;
const COUNTED_STATES = ["active", "waiting", "prioritized", "delayed", "waiting-children", "failed", "completed"] as const;

/** Read-only view of what the other services write to Redis. Every method throws SegueError REDIS_AWAY (UNAVAILABLE) without Redis. */
export class DashboardStore {
  readonly #redis: Redis;
  readonly #queues: readonly Queue[];

  constructor(redis: Redis) {
    this.#redis = redis;
    // The queues' meta keys belong to those who fill them.
    const options = { connection: redis, skipMetasUpdate: true, skipVersionCheck: true };
    this.#queues = Object.values(queueNames).map((name) => new Queue(name, options));
    for (const queue of this.#queues) queue.on("error", () => undefined);
  }

  async overview(): Promise<Overview> {
    const [list, workers, evaluators, queues] = await Promise.all([this.jobs(), this.workers(), this.evaluators(), this.queues()]);
    return { ...list, workers, evaluators, queues };
  }

  /**
   * Every job that is not finished, however many newer ones there are, and the newest finished ones.
   * @param older a finished job: only the finished ones that come after it are listed
   */
  async jobs(older?: string): Promise<JobList> {
    const phases = await this.#phases();
    const finished = phases.filter(({ isFinished }) => isFinished);
    // One that is not there any more has nothing after it.
    const first = older === undefined ? 0 : finished.findIndex(({ id }) => id === older) + 1 || finished.length;
    const page = new Set(finished.slice(first, first + FINISHED_PAGE).map(({ id }) => id));
    const ids = phases.flatMap(({ id, isFinished }) => (page.has(id) || (!isFinished && older === undefined) ? [id] : []));
    const hashes = await this.#hashes(ids.map(redisKeys.job));
    const isMore = first + FINISHED_PAGE < finished.length;
    const last = isMore ? (finished[first + FINISHED_PAGE - 1]?.id ?? null) : null;
    return {
      jobs: ids.map((id, index) => jobView(id, hashes[index] ?? {})),
      counts: { total: phases.length, finished: finished.length, older: last },
    };
  }

  async workers(): Promise<WorkerView[]> {
    const hash = await this.#ask(() => this.#redis.hgetall(redisKeys.workers));
    return Object.entries(hash)
      .map(([id, value]) => workerView(id, value))
      .sort((a, b) => a.name.localeCompare(b.name));
  }

  async evaluators(): Promise<EvaluatorView[]> {
    const hash = await this.#ask(() => this.#redis.hgetall(redisKeys.evaluators));
    return Object.entries(hash)
      .map(([name, value]) => evaluatorView(name, value))
      .sort((a, b) => a.name.localeCompare(b.name));
  }

  async queues(): Promise<Record<string, QueueCounts>> {
    const counts = await this.#ask(() => Promise.all(this.#queues.map((queue) => queue.getJobCounts(...COUNTED_STATES))));
    return Object.fromEntries(this.#queues.map((queue, index) => [queue.name, counts[index] ?? {}]));
  }

  /** @returns undefined when there is no such job */
  async job(id: string): Promise<JobDetail | undefined> {
    const [hash, checkpoints, workers] = await this.#ask(() =>
      Promise.all([
        this.#redis.hgetall(redisKeys.job(id)),
        this.#redis.zrevrange(redisKeys.checkpoints(id), 0, -1),
        this.#redis.hgetall(redisKeys.workers),
      ]),
    );
    if (Object.keys(hash).length === 0) return undefined;
    return {
      job: jobView(id, hash),
      spec: jobSpecView(hash),
      members: memberViews(hash, workers),
      checkpoints: checkpoints.map(checkpointView),
    };
  }

  /** Evaluations of a job, newest checkpoint first, heat maps with the cells done so far. */
  async evaluations(jobId: string): Promise<Evaluations> {
    const ids = await this.#ask(() => this.#redis.zrevrange(redisKeys.evaluations(jobId), 0, MAX_EVALUATIONS - 1));
    const [hashes, cells] = await Promise.all([
      this.#hashes(ids.map(redisKeys.evaluation)),
      this.#hashes(ids.map(redisKeys.cells)),
    ]);
    const found = ids.map((id, index) => ({ id, hash: hashes[index] ?? {}, cells: cells[index] ?? {} }));
    const ofKind = (kind: string) => found.filter(({ hash }) => (hash["kind"] ?? "passkey") === kind);
    return {
      heatMaps: ofKind("passkey").map(({ id, hash, cells }) => evaluationView(id, hash, cells)),
      losses: ofKind("lossByPosition").map(({ id, hash }) => lossView(id, hash)),
    };
  }

  /** The training curve over all attempts in at most about `points` points. */
  async series(jobId: string, points: number): Promise<Series> {
    const [step, attempt] = await this.#ask(() => this.#redis.hmget(redisKeys.job(jobId), "step", "attempt"));
    const resolution = chooseResolution(Number(step ?? 0), points);
    const last = Number(attempt ?? 0) || 0;
    const attempts = Array.from({ length: Math.min(last + 1, MAX_ATTEMPTS) }, (_, index) => last - index).reverse();
    const recorded = await this.#entries((pipeline) => {
      for (const number of attempts) pipeline.xrange(redisKeys.train(jobId, number, resolution), "-", "+");
    });
    // A thinned stream lags behind by up to its span; the newest steps come from the full one.
    const newest = resolution === 1 ? [] : await this.#newest(redisKeys.train(jobId, last), resolution);
    const merged = mergeAttempts(recorded);
    const recordedStep = merged.at(-1)?.step ?? -1;
    const tail = newest.filter((point) => point.step > recordedStep);
    return { resolution, ...toColumns([...downsample(merged, points), ...tail]) };
  }

  /** Where the stream of an attempt ends now. */
  async streamEnd(jobId: string, attempt: number): Promise<StreamCursor> {
    const newest = await this.#ask(() => this.#redis.xrevrange(redisKeys.train(jobId, attempt), "+", "-", "COUNT", 1));
    return { attempt, lastId: newest[0]?.[0] ?? "0-0" };
  }

  /** What an attempt recorded after the cursor, oldest first, and the cursor behind it. */
  async pointsAfter(jobId: string, cursor: StreamCursor): Promise<{ points: SeriesPoint[]; cursor: StreamCursor }> {
    const key = redisKeys.train(jobId, cursor.attempt);
    const entries = await this.#ask(() => this.#redis.xrange(key, `(${cursor.lastId}`, "+", "COUNT", 5_000));
    const points = entries.map(([, fields]) => parseEntry(fields)).filter((point) => point !== undefined);
    return { points, cursor: { attempt: cursor.attempt, lastId: entries.at(-1)?.[0] ?? cursor.lastId } };
  }

  /** All jobs, newest first, in one command: their hashes are read of those only that are shown. */
  async #phases(): Promise<{ id: string; isFinished: boolean }[]> {
    const phaseOf = `${redisKeys.job("*")}->phase`;
    const by = [redisKeys.jobs, "BY", "nosort", "DESC", "GET", "#", "GET", phaseOf];
    const flat = (await this.#ask(() => this.#redis.call("sort", ...by))) as (string | null)[];
    return flat.flatMap((id, index) => {
      if (index % 2 === 1 || id === null) return [];
      const phase = flat[index + 1]?.replace(/^JOB_PHASE_/, "") ?? null;
      // What has no phase is nothing that runs.
      return [{ id, isFinished: phase === null || FINISHED.includes(phase) }];
    });
  }

  async #newest(key: string, count: number): Promise<SeriesPoint[]> {
    const [entries] = await this.#entries((pipeline) => pipeline.xrevrange(key, "+", "-", "COUNT", count));
    return entries?.reverse() ?? [];
  }

  async #hashes(keys: readonly string[]): Promise<Record<string, string>[]> {
    if (keys.length === 0) return [];
    return (await this.#pipeline((pipeline) => {
      for (const key of keys) pipeline.hgetall(key);
    })) as Record<string, string>[];
  }

  async #entries(write: (pipeline: ChainableCommander) => void): Promise<SeriesPoint[][]> {
    const streams = (await this.#pipeline(write)) as [id: string, fields: string[]][][];
    return streams.map((entries) => entries.map(([, fields]) => parseEntry(fields)).filter((point) => point !== undefined));
  }

  async #pipeline(write: (pipeline: ChainableCommander) => void): Promise<unknown[]> {
    const results = await this.#ask(async () => {
      const pipeline = this.#redis.pipeline();
      write(pipeline);
      return pipeline.exec();
    });
    return (results ?? []).map(([error, value]) => {
      if (error) throw error;
      return value;
    });
  }

  /** Asks only a connected Redis and waits only so long: a page is better told at once than kept waiting. */
  async #ask<T>(command: () => Promise<T>): Promise<T> {
    if (this.#redis.status !== "ready") throw redisAway();
    let timer: NodeJS.Timeout | undefined;
    const expired = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(redisAway()), ANSWER_MS);
    });
    try {
      return await Promise.race([command(), expired]);
    } catch (error) {
      // Whatever is not an answer of Redis is the lack of one.
      if (error instanceof ReplyError || error instanceof SegueError) throw error;
      throw redisAway(error);
    } finally {
      clearTimeout(timer);
    }
  }
}

function redisAway(cause?: unknown): SegueError {
  return new SegueError("REDIS_AWAY", "Redis does not answer.", { status: "UNAVAILABLE", retryable: true, cause });
}
