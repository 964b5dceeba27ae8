import { cureKey, SegueError } from "@segue/core";
import type { EngineName } from "@segue/engine";
import { faultPoint, fromServiceError, queueNames, redisKeys, type connectRedis, type Logger } from "@segue/runtime";
import { DelayedError, Queue, UnrecoverableError, Worker, type Job } from "bullmq";
import type { Client, Tensors } from "@segue/protocol";
import type { CheckpointCache } from "./checkpoint-cache.js";
import { cellFailure, failedCellOf, isFinalFailure } from "./cell-failure.js";
import { readCorpus } from "./corpus.js";
import type { ModelProcess } from "./model-process.js";
import type { EvaluationResults } from "./results.js";
import type { Cell, CellResult } from "./tasks/task.js";
import { parseCell, parseClosing, taskOf } from "./tasks/tasks.js";

type Redis = ReturnType<typeof connectRedis>;

export interface EvaluatorOptions {
  readonly name: string;
  /** A connection of role "worker", closed by the caller. */
  readonly redis: Redis;
  readonly checkpoints: CheckpointCache;
  /** Of the coordinator. */
  readonly tensors: Client<typeof Tensors>;
  readonly model: ModelProcess;
  readonly results: EvaluationResults;
  readonly engine: EngineName | "auto";
  readonly threads: number;
  /** Which of the visible GPUs. @default 0 */
  readonly gpu?: number | undefined;
  /** A cell that no process renews for this long is given to another evaluator. @default 60000 */
  readonly lockMs?: number | undefined;
  readonly logger: Logger;
}

const LOCK_MS = 60_000;
/** Evaluators that may die in one cell: a cell that kills them must not go round for ever. One that is told to stop does not count. */
const MAX_STARTS = 10;
const STATUS_MS = 2_000;

/** Takes cells from the queue one at a time and closes evaluations whose cells are complete. */
export class Evaluator {
  readonly #options: EvaluatorOptions;
  readonly #workers: readonly Worker[];
  readonly #cells: Queue;
  readonly #cutOff = new AbortController();
  readonly #status: NodeJS.Timeout;
  #cell = "";
  #engine: string;
  #closed: Promise<void> | undefined;

  constructor(options: EvaluatorOptions) {
    this.#options = options;
    this.#engine = options.engine;
    const lockMs = options.lockMs ?? LOCK_MS;
    const settings = {
      connection: options.redis,
      concurrency: 1,
      lockDuration: lockMs,
      stalledInterval: lockMs / 2,
      // How often a cell may be found without its evaluator and started again.
      maxStalledCount: MAX_STARTS - 1,
    };
    this.#cells = new Queue(queueNames.cells, { connection: options.redis, skipMetasUpdate: true });
    this.#cells.on("error", (error) => options.logger.debug({ event: "queueError", err: error }, "the queue has trouble"));
    this.#workers = [
      new Worker(queueNames.cells, (job, token) => this.#runCell(job, token), settings),
      new Worker(queueNames.heatmaps, (job) => this.#closeEvaluation(job), settings),
    ];
    for (const worker of this.#workers) {
      worker.on("error", (error) => options.logger.debug({ event: "queueError", err: error }, "the queue has trouble"));
      worker.on("failed", (job, error) => void this.#afterFailure(job, error));
    }
    this.#status = setInterval(() => this.#report(), STATUS_MS);
    this.#report();
  }

  /** Takes nothing new and waits for the running cell; after graceMs the cell goes back into the queue. Idempotent. */
  close(graceMs: number): Promise<void> {
    this.#closed ??= this.#close(graceMs);
    return this.#closed;
  }

  async #close(graceMs: number): Promise<void> {
    clearInterval(this.#status);
    const timer = setTimeout(() => this.#cutOff.abort(new Error("the evaluator is stopping")), graceMs);
    await Promise.all([...this.#workers.map((worker) => worker.close()), this.#cells.close()]);
    clearTimeout(timer);
    await this.#options.redis.hdel(redisKeys.evaluators, this.#options.name).catch(() => undefined);
  }

  async #runCell(job: Job, token: string | undefined): Promise<CellResult> {
    const { checkpoints, tensors, model, results, engine, threads, gpu, logger } = this.#options;
    const cell = permanently(() => parseCell(job.data));
    const task = taskOf(cell);
    const cure = cell.cure.kind === "none" ? "" : `, cure ${cureKey(cell.cure)}`;
    this.#cell = `${cell.jobId} step ${cell.step}: ${task.text(cell)}${cure}`;
    this.#report();
    const signal = this.#cutOff.signal;
    try {
      await faultPoint("evaluator.cellBegins", cell.step);
      const known = await results.known(cell);
      if (known) return await results.cell(cell, known);
      const folder = await checkpoints.folderOf(cell, signal);
      const corpus = await readCorpus(tensors, cell.jobId, task.texts?.(cell) ?? [], signal);
      const listener = {
        engine: (detail: string) => (this.#engine = detail),
        progress: (done: number) => void job.updateProgress({ done, of: task.size(cell) }).catch(() => undefined),
      };
      const request = { folder, engine, threads, gpu, cell, corpus };
      const computed = await model.evaluate(request, listener, signal);
      await faultPoint("evaluator.cellComputed", cell.step);
      const result = await results.cell(cell, computed);
      logger.info({ event: "cellDone", jobId: cell.jobId, step: cell.step, ...numbersOf(result) }, "evaluated a cell");
      return result;
    } catch (error) {
      if (signal.aborted) {
        // Back into the queue without counting as an attempt.
        await job.moveToDelayed(Date.now(), token);
        throw new DelayedError();
      }
      throw retryOrNot(error);
    } finally {
      this.#cell = "";
      this.#report();
    }
  }

  async #closeEvaluation(job: Job): Promise<object> {
    const { results, logger } = this.#options;
    const closing = permanently(() => parseClosing(job.data));
    const { evaluationId } = closing;
    const cells = Object.values(await job.getChildrenValues<CellResult>());
    const outcome = permanently(() => taskOf(closing).close(closing, cells));
    await results.done(closing, cells, outcome);
    logger.info({ event: "evaluationDone", evaluationId, cells: cells.length, ...outcome.summary }, "an evaluation is complete");
    return outcome.summary;
  }

  /** Says in the evaluation why it failed: in which cell, after how many tries, and what the last one met. */
  async #afterFailure(job: Job | undefined, error: Error): Promise<void> {
    const { logger, results } = this.#options;
    logger.warn(
      { event: "evaluationFailed", queueJob: job?.id, attempt: job?.attemptsMade, reason: error.message },
      "evaluation failed",
    );
    if (!job || !isFinalFailure(job, error)) return;
    const { evaluationId, jobId } = job.data as Partial<Cell>;
    if (!evaluationId || !jobId) return;
    // A parent only says which of its children failed.
    const failed = job.queueName === queueNames.cells ? job : await failedCellOf(job, this.#cells).catch(() => undefined);
    const reason = failed ? cellFailure(failed) : error.message;
    await results.failed(evaluationId, jobId, reason).catch(() => undefined);
  }

  #report(): void {
    const { name, redis } = this.#options;
    const status = {
      state: this.#cell === "" ? "idle" : "evaluating",
      cell: this.#cell,
      engine: this.#engine,
      seenAtMs: Date.now(),
    };
    void redis.hset(redisKeys.evaluators, name, JSON.stringify(status)).catch(() => undefined);
  }
}

/** What of a result is short enough for the log. */
function numbersOf(result: CellResult): object {
  return Object.fromEntries(Object.entries(result).filter(([, value]) => typeof value === "number"));
}

/** BullMQ tries again after any error but this one. */
function permanently<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new UnrecoverableError(error instanceof Error ? error.message : String(error));
  }
}

/** Errors that say themselves that another try is in vain are not tried again. */
function retryOrNot(error: unknown): Error {
  const known = error instanceof SegueError ? error : fromServiceError(error);
  const transient = known.retryable || ["UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL"].includes(known.status);
  const message = `${known.code}: ${known.message}`;
  return transient ? new Error(message, { cause: error }) : new UnrecoverableError(message);
}
