import type { EvaluationSpec } from "@segue/core";
import { Jobs, TensorRegistry, Tensors, Workers } from "@segue/protocol";
import { hostOf, letHeapGrow, MetricsWriter, startGrpcServer, type connectRedis, type Logger, type Security } from "@segue/runtime";
import type { CheckpointMirror } from "./checkpoints/checkpoint-mirror.js";
import { CheckpointStore } from "./checkpoints/checkpoint-store.js";
import type { StoredCheckpoint } from "./checkpoints/manifest.js";
import { openMirror } from "./checkpoints/open-mirror.js";
import { retainCheckpoints } from "./checkpoints/retain-checkpoints.js";
import { DueEvaluations } from "./evaluations/due-evaluations.js";
import { EvaluationQueue } from "./evaluations/evaluation-queue.js";
import { planEvaluations } from "./evaluations/plan.js";
import type { DataSource } from "./feed/step-cutter.js";
import { JobBook } from "./jobs/job-book.js";
import { isActive, type JobRecord } from "./jobs/job-record.js";
import { JobStore } from "./jobs/job-store.js";
import { jobsHandlers } from "./jobs/jobs-handlers.js";
import { NOT_STARTED } from "./jobs/live-status.js";
import { mirroredJobs } from "./jobs/mirrored-jobs.js";
import { JobMetrics } from "./metrics/job-metrics.js";
import type { ClusterView } from "./metrics/service-gauges.js";
import { EventLog } from "./run/event-log.js";
import { Scheduler } from "./run/scheduler.js";
import { coordinatorTensors } from "./serve-tensors.js";
import { lockStore } from "./store/store-lock.js";
import { WorkerPool } from "./workers/worker-pool.js";

export interface CoordinatorOptions {
  /** host:port; port 0 takes a free one. */
  readonly listen: string;
  /** host:port under which workers reach this coordinator; absent: the address it listens on. */
  readonly advertise?: string | undefined;
  readonly store: string;
  /** Where checkpoints are copied to as well: `s3://bucket/prefix` or a folder. */
  readonly checkpoints?: string | undefined;
  /** Of an S3-compatible service; absent: Amazon's. */
  readonly s3Endpoint?: string | undefined;
  /** How long nothing may move on a connection to the bucket that a request waits for. @default 30000 */
  readonly checkpointsTimeoutMs?: number | undefined;
  readonly heartbeatMs: number;
  readonly data: DataSource;
  readonly security: Security;
  readonly logger: Logger;
  /** A connection of role "producer", closed by the caller; absent: no metrics and no evaluations. */
  readonly redis?: ReturnType<typeof connectRedis> | undefined;
  /** Another process took the store: the caller must end this one. */
  readonly onStoreLost: (error: Error) => void;
}

export interface Coordinator extends ClusterView {
  /** host:port it listens on. */
  readonly address: string;
  /** Stops every job with a checkpoint, releases the workers, gives up the store. Takes at most about 15 s. Idempotent. */
  close(): Promise<void>;
}

/** From how many workers on speed matters more than a small heap. */
const MANY_WORKERS = 64;
const ROUND_MS = 5_000;
const JOBS_MS = 12_000;
const SERVER_CLOSE_MS = 1_500;
/** For copies of the last checkpoints; what is not done by then is done at the next start. */
const COPIES_MS = 3_000;

/**
 * Starts a coordinator on a store; jobs that were waiting or running continue by themselves.
 * @throws SegueError STORE_LOCKED, STORE_FULL, INSECURE_LISTENER, LISTEN_FAILED, CHECKPOINTS_URL_INVALID, CHECKPOINTS_REFUSED
 */
export async function startCoordinator(options: CoordinatorOptions): Promise<Coordinator> {
  const { store, logger, security, redis } = options;
  let isStoreLost = false;
  const lock = await lockStore(store, (error) => {
    isStoreLost = true;
    options.onStoreLost(error);
  });
  const writer = redis && new MetricsWriter(redis, logger);
  const queue = redis && new EvaluationQueue(redis, logger);
  const metrics = new JobMetrics(writer);
  const jobs = new JobStore(store, lock, logger);
  const book = new JobBook(jobs, (view) => metrics.job(view));
  const registry = new TensorRegistry();
  let mirror: CheckpointMirror | undefined;
  const stores = new Map<string, CheckpointStore>();
  const checkpointsOf = (jobId: string): CheckpointStore => {
    const known = stores.get(jobId) ?? new CheckpointStore(jobs.folder(jobId), logger, mirror);
    stores.set(jobId, known);
    return known;
  };
  const evaluations = new DueEvaluations({
    queue,
    logger,
    onTrouble: (jobId, evaluationsNotQueued) => book.setLive(jobId, { evaluationsNotQueued }),
    onOver: (jobId) => {
      const policy = book.get(jobId).record.spec.checkpoints;
      void retainCheckpoints({ jobId, checkpoints: checkpointsOf(jobId), policy, evaluations, metrics, logger });
    },
  });
  const onRedisReady = (): void => {
    evaluations.wake();
    // Redis may have missed what happened meanwhile, or have lost everything.
    for (const view of book.jobs) metrics.job(view);
  };
  redis?.on("ready", onRedisReady);
  const eventsOf = (jobId: string): EventLog => new EventLog({ jobFolder: jobs.folder(jobId), fence: lock, logger });
  let address = options.advertise ?? "";

  const scheduler: Scheduler = new Scheduler({
    book,
    workers: () => pool.workers,
    dependenciesOf: (jobId) => ({
      checkpoints: checkpointsOf(jobId),
      events: eventsOf(jobId),
      fence: lock,
      registry,
      data: options.data,
      metrics,
      logger,
      address,
      evaluations,
    }),
  });
  const pool = new WorkerPool({
    heartbeatMs: options.heartbeatMs,
    security,
    logger,
    listener: {
      attached: () => {
        if (pool.workers.length >= MANY_WORKERS) letHeapGrow();
        scheduler.attached();
      },
      draining: () => scheduler.draining(),
      message: (worker, message) => scheduler.message(worker, message),
      gone: (worker) => {
        scheduler.gone(worker);
        metrics.workerGone(worker.workerId);
      },
    },
  });
  const workerReports = setInterval(() => {
    for (const worker of pool.workers) metrics.worker(worker, scheduler.shardsOf(worker));
  }, options.heartbeatMs);

  const stopParts = async (): Promise<void> => {
    clearInterval(workerReports);
    for (const { workerId } of pool.workers) metrics.workerGone(workerId);
    pool.close();
    registry.close();
    redis?.off("ready", onRedisReady);
    await mirror?.close();
    jobs.close();
    await evaluations.close();
    await queue?.close();
    await writer?.close();
    await lock.release();
  };

  try {
    if (options.checkpoints !== undefined) {
      const onTrouble = (jobId: string, notCopied: string): void => book.setLive(jobId, { notCopied });
      const { checkpoints: url, s3Endpoint, checkpointsTimeoutMs: timeoutMs } = options;
      mirror = await openMirror({ url, s3Endpoint, timeoutMs }, { logger, onTrouble });
    }
    await adoptJobs();
    const server = await startGrpcServer({
      listen: options.listen,
      ...security,
      logger,
      services: [
        {
          service: Jobs,
          handlers: jobsHandlers({ book, scheduler, pool, data: options.data, checkpointsOf, eventsOf, evaluations, logger }),
        },
        { service: Workers, handlers: pool.handlers },
        { service: Tensors, handlers: coordinatorTensors(registry, book, checkpointsOf, options.data) },
      ],
    });
    address ||= server.address;
    if (["0.0.0.0", "::"].includes(hostOf(address))) {
      logger.warn({ event: "addressUnreachable", address }, "workers cannot reach this address; set SEGUE_ADVERTISE");
    }
    await scheduler.startAll();

    let closing: Promise<void> | undefined;
    const close = async (): Promise<void> => {
      // Whoever has the store now runs the jobs; waiting for rounds that cannot be kept would only hold up the workers.
      await withDeadline(scheduler.stop(isStoreLost ? 0 : ROUND_MS), JOBS_MS, () =>
        logger.warn({ event: "jobsCutOff" }, "jobs did not stop in time"),
      );
      pool.close();
      await mirror?.settle(COPIES_MS);
      await server.close(SERVER_CLOSE_MS);
      await stopParts();
    };
    return {
      address: server.address,
      get jobs() {
        return book.jobs;
      },
      get workers() {
        return pool.workers;
      },
      close: () => (closing ??= close()),
    };
  } catch (error) {
    await stopParts();
    throw error;
  }

  /** A job whose checkpoints cannot be read says so when it goes on, and holds up no other. */
  async function listed(checkpoints: CheckpointStore): Promise<StoredCheckpoint[]> {
    try {
      const stored = await checkpoints.list();
      await checkpoints.tidy();
      return stored;
    } catch (error) {
      logger.error({ event: "checkpointsUnreadable", folder: checkpoints.parent, err: error }, "checkpoints cannot be read");
      return [];
    }
  }

  async function adoptJobs(): Promise<void> {
    const local = await jobs.loadAll();
    const isLocal = (jobId: string): boolean => local.some((record) => record.jobId === jobId);
    for (const record of [...local, ...(mirror ? mirroredJobs(mirror, isLocal) : [])]) {
      const { jobId } = record;
      const checkpoints = checkpointsOf(jobId);
      const stored = await listed(checkpoints);
      const { step = 0, digest = "", loss = 0 } = stored[0]?.manifest ?? {};
      book.adopt(record, { ...NOT_STARTED, step, loss, checkpointStep: step, checkpointDigest: digest });
      book.setLive(jobId, { notCopied: mirror?.troubleOf(jobId) ?? "" });
      for (const { manifest } of stored) evaluations.found(manifest, dueAt(record, manifest.step, step));
      // A pause that was under way is complete now: nothing runs, and the newest checkpoint counts.
      if (record.phase === "PAUSING" && !isActive(record))
        await book.setPhase(jobId, "PAUSED", "paused; the coordinator was restarted meanwhile");
    }
    logger.info({ event: "storeOpened", store, jobs: book.jobs.length }, "the store is open");
  }
}

/** The evaluations that a stored checkpoint of a job must have had by now. A cancelled job gets no more. */
function dueAt({ phase, spec }: JobRecord, step: number, newestStep: number): EvaluationSpec[] {
  if (phase === "CANCELLED") return [];
  return planEvaluations(spec.evaluations, spec.checkpoints, { step, isLast: phase === "SUCCEEDED" && step === newestStep });
}

/** Resolves with the promise or after the deadline, whichever comes first. */
async function withDeadline(promise: Promise<void>, deadlineMs: number, onLate: () => void): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(() => {
      onLate();
      resolve();
    }, deadlineMs);
  });
  await Promise.race([promise, late]);
  clearTimeout(timer);
}
