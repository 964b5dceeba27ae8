import { SegueError, type EvaluationSpec, type JobSpec, type Ledger } from "@segue/core";
import { pullTensor } from "@segue/protocol";
import { evaluationId, faultPoint, type Logger } from "@segue/runtime";
import type { CheckpointStore, StoredCheckpoint } from "../checkpoints/checkpoint-store.js";
import type { LoadedCheckpoint } from "../checkpoints/load-checkpoint.js";
import type { CheckpointCursor } from "../checkpoints/manifest.js";
import type { CheckpointInput } from "../checkpoints/write-checkpoint.js";
import { planEvaluations } from "../evaluations/plan.js";
import type { JobBook } from "../jobs/job-book.js";
import type { JobMetrics } from "../metrics/job-metrics.js";
import type { AttachedWorker } from "../workers/attached-worker.js";
import { modelRef } from "./lane-states.js";

/** The evaluation queue as a runner sees it; without Redis, one that says so. */
export interface Enqueue {
  submit(jobId: string, checkpoint: StoredCheckpoint["manifest"], evaluation: EvaluationSpec): Promise<unknown>;
  isPending(evaluationId: string): Promise<boolean>;
}

export interface CheckpointKeeperOptions {
  readonly jobId: string;
  readonly spec: JobSpec;
  readonly book: JobBook;
  readonly checkpoints: CheckpointStore;
  readonly metrics: JobMetrics;
  readonly enqueue: Enqueue;
  readonly logger: Logger;
  readonly workers: ReadonlyMap<string, AttachedWorker>;
}

type Committed = Pick<CheckpointInput, "eosId" | "tokenizerJson" | "states" | "weightsDigest">;

/** Makes committed steps of one job durable, in the background, one at a time; then queues evaluations and deletes old checkpoints. */
export class CheckpointKeeper {
  readonly #options: CheckpointKeeperOptions;
  #cursor: CheckpointCursor | undefined;
  #committed: Committed | undefined;
  /** Being written or waiting for their turn, by step. */
  readonly #running = new Map<number, Promise<boolean>>();
  #newest: StoredCheckpoint | undefined;

  constructor(options: CheckpointKeeperOptions) {
    this.#options = options;
  }

  /** Takes over the committed cut of weights, states and cursor. */
  committed(cursor: CheckpointCursor, committed: Committed): void {
    this.#cursor = cursor;
    this.#committed = committed;
  }

  restored(checkpoint: LoadedCheckpoint | undefined): void {
    this.#newest = checkpoint;
    this.#cursor = undefined;
    this.#committed = undefined;
  }

  /** Whether a regular checkpoint is written on the way. The last one is written when training ends. */
  isDue(step: number, totalSteps: number): boolean {
    const { everySteps } = this.#options.spec.checkpoints;
    return everySteps > 0 && step % everySteps === 0 && step < totalSteps;
  }

  /** Waits until no checkpoint of a step before `beforeStep` is being written any more. */
  async settle(beforeStep = Infinity): Promise<void> {
    await Promise.all([...this.#running].flatMap(([step, done]) => (step < beforeStep ? [done] : [])));
  }

  /**
   * Writes the committed step. Weights and moments are pulled from any worker that holds it.
   * @returns whether it is durable now; a failure is logged, training can go on without it
   */
  start(ledger: Ledger): Promise<boolean> {
    const cursor = this.#cursor;
    const committed = this.#committed;
    if (!cursor || !committed || cursor.step !== ledger.step) return Promise.resolve(false);
    const done = this.settle()
      .then(() => this.#write(ledger, cursor, committed))
      .finally(() => this.#running.delete(cursor.step));
    this.#running.set(cursor.step, done);
    return done;
  }

  /** Queues every evaluation for the checkpoint that training ended with. Repeats are harmless. */
  async evaluateLast(): Promise<void> {
    if (this.#newest) await this.#evaluate(this.#newest, true);
  }

  async #write(ledger: Ledger, cursor: CheckpointCursor, committed: Committed): Promise<boolean> {
    const { jobId, spec, checkpoints, book, metrics, logger } = this.#options;
    const startedAtMs = performance.now();
    try {
      await faultPoint("coordinator.checkpointBegins", cursor.step);
      const holders = [...ledger.holders];
      const readModel = (offset: number, length: number) => this.#readModel(cursor.step, holders, offset, length);
      const checkpoint = await checkpoints.write({ jobId, spec, cursor, ...committed, readModel });
      this.#newest = checkpoint;
      await faultPoint("coordinator.checkpointWritten", cursor.step);
      const { step, digest, sizeBytes } = checkpoint.manifest;
      const durationMs = Math.round(performance.now() - startedAtMs);
      logger.info({ event: "checkpointWritten", step, digest, sizeBytes, durationMs }, "a checkpoint is written");
      book.setLive(jobId, { checkpointStep: step, checkpointDigest: digest });
      metrics.checkpoint(checkpoint.manifest);
      await this.#evaluate(checkpoint, false);
      await this.#retain();
      return true;
    } catch (error) {
      logger.warn({ event: "checkpointFailed", step: cursor.step, err: error }, "a checkpoint could not be written");
      return false;
    }
  }

  /** From the first holder that delivers; one that does not is not asked again for this checkpoint. */
  async #readModel(step: number, holders: string[], offset: number, length: number): Promise<Uint8Array> {
    for (let workerId = holders[0]; workerId !== undefined; workerId = holders[0]) {
      const worker = this.#options.workers.get(workerId);
      try {
        if (worker) {
          const ref = modelRef(this.#options.jobId, step);
          return (await pullTensor(worker.tensors, ref, { offset, length, signal: worker.gone })).data;
        }
      } catch (error) {
        this.#options.logger.warn(
          { event: "snapshotPullFailed", workerId, step, err: error },
          "a worker did not deliver its snapshot",
        );
      }
      if (holders[0] === workerId) holders.shift();
    }
    throw new SegueError("SNAPSHOT_LOST", `No worker holds the snapshot of step ${step} any more.`, { status: "UNAVAILABLE" });
  }

  async #evaluate({ manifest }: StoredCheckpoint, isLast: boolean): Promise<void> {
    const { jobId, spec, enqueue, logger } = this.#options;
    for (const evaluation of planEvaluations(spec.evaluations, spec.checkpoints, { step: manifest.step, isLast })) {
      try {
        await enqueue.submit(jobId, manifest, evaluation);
        logger.info({ event: "evaluationQueued", step: manifest.step, evaluation: evaluation.name }, "an evaluation is queued");
      } catch (error) {
        logger.warn(
          { event: "evaluationNotQueued", step: manifest.step, evaluation: evaluation.name, err: error },
          "no evaluation was queued",
        );
      }
    }
  }

  async #retain(): Promise<void> {
    const { jobId, spec, checkpoints, enqueue, metrics, logger } = this.#options;
    const isNeeded = async (step: number): Promise<boolean> => {
      const pending = spec.evaluations.map(({ name }) => enqueue.isPending(evaluationId(jobId, step, name)));
      return (await Promise.all(pending)).includes(true);
    };
    for (const step of await checkpoints.retain(spec.checkpoints.keepLast, isNeeded)) {
      metrics.checkpointDeleted(jobId, step);
      logger.debug({ event: "checkpointDeleted", step }, "an old checkpoint is deleted");
    }
  }
}
