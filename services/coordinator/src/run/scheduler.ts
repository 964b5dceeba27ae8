import { setTimeout as sleep } from "node:timers/promises";
import { SegueError } from "@segue/core";
import type { JobBook } from "../jobs/job-book.js";
import { isActive, isFinal } from "../jobs/job-record.js";
import { allocate } from "../workers/allocate.js";
import { leftAside, shortage, type PoolWorker } from "../workers/shortage.js";
import type { AttachedWorker } from "../workers/attached-worker.js";
import type { PoolListener, WorkerMessage } from "../workers/worker-pool.js";
import { JobRunner, PAUSED_ON_REQUEST } from "./job-runner.js";
import type { RunnerDependencies } from "./runner-parts.js";

export interface SchedulerOptions {
  readonly book: JobBook;
  /** Workers that are attached. */
  readonly workers: () => readonly AttachedWorker[];
  readonly dependenciesOf: (
    jobId: string,
  ) => Omit<RunnerDependencies, "book" | "release" | "wantsWorkers" | "shortage" | "leftAside">;
}

/** How long a resumption waits for the documents to be opened, which takes longer where they have to be indexed. */
const RESUME_MS = 5_000;

/** Brings jobs and workers together: jobs of the highest priority first, among them the oldest. */
export class Scheduler implements PoolListener {
  readonly #options: SchedulerOptions;
  /** In order of submission or resumption. */
  readonly #runners = new Map<string, JobRunner>();
  #stopping = false;

  constructor(options: SchedulerOptions) {
    this.#options = options;
  }

  /** Starts to train a job, or waits for workers. */
  start(jobId: string): void {
    if (this.#stopping || this.#runners.has(jobId)) return;
    const { book, dependenciesOf } = this.#options;
    const allocate = (): void => this.#allocate();
    const pool = (): readonly PoolWorker[] => this.#options.workers().map(asPoolWorker);
    const runner = new JobRunner(jobId, {
      ...dependenciesOf(jobId),
      book,
      release: allocate,
      wantsWorkers: allocate,
      shortage: (demand) => shortage(demand, pool()),
      leftAside: (demand) => leftAside(demand, pool()),
    });
    this.#runners.set(jobId, runner);
    void runner.run().finally(() => {
      this.#runners.delete(jobId);
      this.#allocate();
    });
    this.#allocate();
  }

  /** Idempotent. @throws SegueError JOB_NOT_FOUND, JOB_FINISHED */
  async pause(jobId: string): Promise<void> {
    const { phase, errorCode } = this.#unfinished(jobId, "paused");
    if ((phase === "PAUSED" || phase === "PAUSING") && errorCode === undefined) return;
    const runner = this.#runners.get(jobId);
    if (phase === "PAUSED" && !runner) return this.#options.book.setPhase(jobId, "PAUSED", PAUSED_ON_REQUEST);
    await this.#options.book.setPhase(jobId, "PAUSING", "ending the round and writing a checkpoint");
    runner?.stop("pause");
  }

  /**
   * Idempotent; a job that is pausing is waited for.
   * @throws SegueError JOB_NOT_FOUND, JOB_FINISHED; DATA_CHANGED, DATA_UNREADABLE, CHECKPOINTS_MISSING, CHECKPOINTS_UNREADABLE when that is
   * found out soon: the job is paused again then
   */
  async resume(jobId: string): Promise<void> {
    const { phase } = this.#unfinished(jobId, "resumed");
    if (phase === "WAITING" || phase === "RUNNING") return;
    await this.#runners.get(jobId)?.run();
    if (this.#unfinished(jobId, "resumed").phase !== "PAUSED") return;
    await this.#options.book.setPhase(jobId, "WAITING", "waiting for workers");
    this.start(jobId);
    const runner = this.#runners.get(jobId);
    if (!runner) return;
    const { book } = this.#options;
    await Promise.race([runner.opened, runner.run(), sleep(RESUME_MS, undefined, { ref: false })]);
    const { record } = book.get(jobId);
    if (record.phase !== "PAUSED" || record.errorCode === undefined) return;
    throw new SegueError(record.errorCode, `The job ${jobId} stays paused. ${record.reason}`, { status: "FAILED_PRECONDITION" });
  }

  /** A coordinator has started: what was waiting or running goes on. */
  async startAll(): Promise<void> {
    const { book } = this.#options;
    for (const { record } of book.jobs) {
      if (!isActive(record)) continue;
      if (record.errorCode !== undefined) await book.setPhase(record.jobId, "WAITING", "waiting for workers");
      this.start(record.jobId);
    }
  }

  /** Idempotent. @throws SegueError JOB_NOT_FOUND, JOB_FINISHED when it has succeeded or failed */
  async cancel(jobId: string): Promise<void> {
    const { book } = this.#options;
    if (book.get(jobId).record.phase === "CANCELLED") return;
    this.#unfinished(jobId, "cancelled");
    const runner = this.#runners.get(jobId);
    if (!runner) return book.setPhase(jobId, "CANCELLED", "cancelled on request");
    runner.stop("cancel");
    await runner.run();
  }

  /**
   * Stops every job at its committed step with a checkpoint; their phases stay, so that the next coordinator continues them.
   * @param roundMs how long a round in flight may go on
   */
  async stop(roundMs: number): Promise<void> {
    this.#stopping = true;
    const runners = [...this.#runners.values()];
    for (const runner of runners) runner.stop("shutdown");
    const timer = setTimeout(() => runners.forEach((runner) => runner.stop("shutdown", true)), roundMs);
    await Promise.all(runners.map((runner) => runner.run()));
    clearTimeout(timer);
  }

  shardsOf(worker: AttachedWorker): readonly number[] {
    return this.#runnerOf(worker)?.shardsOf(worker.workerId) ?? [];
  }

  attached(): void {
    this.#allocate();
  }

  draining(): void {
    this.#allocate();
  }

  gone(worker: AttachedWorker): void {
    this.#runnerOf(worker)?.workerGone(worker);
    this.#allocate();
  }

  message(worker: AttachedWorker, message: WorkerMessage): void {
    // A message about another job is a stray of one that has released the worker.
    if (message.value.jobId === worker.jobId) this.#runnerOf(worker)?.message(worker, message);
  }

  #allocate(): void {
    if (this.#stopping) return;
    const workers = this.#options.workers();
    const free = workers.filter(({ jobId, draining, expelled }) => jobId === undefined && !draining && !expelled);
    // The sort is stable: within a priority jobs keep the order of their submission or resumption.
    const runners = [...this.#runners.values()].sort((a, b) => b.priority - a.priority);
    const grants = allocate(
      free.map(({ workerId, computing, straggler }) => ({ workerId, ...computing, straggler })),
      runners.map((runner) => runner.demand),
    );
    const byId = new Map(free.map((worker) => [worker.workerId, worker]));
    for (const { jobId, workerIds } of grants) {
      for (const workerId of workerIds) {
        const worker = byId.get(workerId);
        if (worker) this.#runners.get(jobId)?.claim(worker);
      }
    }
    for (const runner of runners) runner.poolChanged();
  }

  #runnerOf({ jobId }: AttachedWorker): JobRunner | undefined {
    return jobId === undefined ? undefined : this.#runners.get(jobId);
  }

  #unfinished(jobId: string, participle: string) {
    const { record } = this.#options.book.get(jobId);
    if (!isFinal(record.phase)) return record;
    throw new SegueError("JOB_FINISHED", `The job ${jobId} is ${record.phase} and cannot be ${participle}.`, {
      status: "FAILED_PRECONDITION",
    });
  }
}

function asPoolWorker({ computing, jobId, draining, expelled }: AttachedWorker): PoolWorker {
  return { ...computing, jobId, draining, expelled };
}
