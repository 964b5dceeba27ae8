import { parameterLayout, SegueError, type JobSpec, type Ledger } from "@segue/core";
import { pullTensor } from "@segue/protocol";
import { faultPoint, type Logger } from "@segue/runtime";
import type { CheckpointStore } from "../checkpoints/checkpoint-store.js";
import type { LoadedCheckpoint } from "../checkpoints/load-checkpoint.js";
import type { CheckpointCursor, StoredCheckpoint } from "../checkpoints/manifest.js";
import type { CheckpointInput } from "../checkpoints/write-checkpoint.js";
import { retainCheckpoints } from "../checkpoints/retain-checkpoints.js";
import type { DueEvaluations } from "../evaluations/due-evaluations.js";
import { planEvaluations } from "../evaluations/plan.js";
import type { JobBook } from "../jobs/job-book.js";
import type { JobMetrics } from "../metrics/job-metrics.js";
import type { StoreFence } from "../store/fence.js";
import { freeBytes, isOutOfSpace, retryDelayMs } from "../store/storage-trouble.js";
import type { AttachedWorker } from "../workers/attached-worker.js";
import { modelRef } from "./lane-states.js";
import { slicedModel } from "./sliced-model.js";

export interface CheckpointKeeperOptions {
  readonly jobId: string;
  readonly spec: JobSpec;
  readonly book: JobBook;
  readonly checkpoints: CheckpointStore;
  readonly fence: StoreFence;
  readonly metrics: JobMetrics;
  readonly evaluations: Pick<DueEvaluations, "add" | "isNeeded">;
  readonly logger: Logger;
  readonly workers: ReadonlyMap<string, AttachedWorker>;
}

type Committed = Pick<CheckpointInput, "eosId" | "tokenizerJson" | "states" | "weightsDigest">;

/**
 * Makes committed steps of one job durable, in the background, one at a time; then evaluations fall due and old checkpoints are deleted.
 * Only the local disk is waited for. While that fails training goes on: the job is marked as not durable, and the next committed step after a growing pause is tried.
 */
export class CheckpointKeeper {
  readonly #options: CheckpointKeeperOptions;
  #cursor: CheckpointCursor | undefined;
  #committed: Committed | undefined;
  /** Being written or waiting for their turn, by step. */
  readonly #running = new Map<number, Promise<boolean>>();
  #newest: StoredCheckpoint | undefined;
  /** Attempts that failed since the last checkpoint that was written. */
  #failures = 0;
  #retryAtMs = 0;

  constructor(options: CheckpointKeeperOptions) {
    this.#options = options;
  }

  /** Takes over the committed cut of weights, states and cursor. */
  committed(cursor: CheckpointCursor, committed: Committed): void {
    this.#cursor = cursor;
    this.#committed = committed;
  }

  /** @param written the newest step of which a checkpoint was written, as far as is known */
  restored(checkpoint: LoadedCheckpoint | undefined, written = 0): void {
    const { jobId, book, checkpoints } = this.#options;
    this.#newest = checkpoint;
    this.#cursor = undefined;
    this.#committed = undefined;
    const isGone = written > (checkpoint?.cursor.step ?? 0) && !checkpoints.passedOver.has(written);
    const steps = [...checkpoints.passedOver, ...(isGone ? [[written, "it is not there any more"] as const] : [])];
    const passedOver = steps.map(([step, what]) => `step ${step}: ${what}`);
    const checkpointWarning = passedOver.length === 0 ? "" : `checkpoints were passed over: ${passedOver.join("; ")}`;
    book.setLive(jobId, { checkpointWarning });
  }

  /** Whether a checkpoint is written on the way: a regular one, or one in place of one that failed. The last is written at the end. */
  isDue(step: number, totalSteps: number): boolean {
    const { everySteps } = this.#options.spec.checkpoints;
    if (step >= totalSteps) return false;
    if (this.#failures > 0) return this.retryInMs === 0;
    return everySteps > 0 && step % everySteps === 0;
  }

  /** Until a failed checkpoint is worth another attempt. */
  get retryInMs(): number {
    return Math.max(0, this.#retryAtMs - performance.now());
  }

  /** Waits until no checkpoint of a step before `beforeStep` is being written any more. */
  async settle(beforeStep = Infinity): Promise<void> {
    await Promise.all([...this.#running].flatMap(([step, done]) => (step < beforeStep ? [done] : [])));
  }

  /**
   * Writes the committed step. Weights and moments are pulled from any worker that holds them.
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

  /** Every evaluation falls due for the checkpoint that training ended with. Repeats are harmless. */
  evaluateLast(): void {
    if (this.#newest) this.#evaluate(this.#newest, true);
  }

  async #write(ledger: Ledger, cursor: CheckpointCursor, committed: Committed): Promise<boolean> {
    const { jobId, book, metrics, logger, fence } = this.#options;
    const startedAtMs = performance.now();
    try {
      await fence.verify();
      await faultPoint("coordinator.checkpointBegins", cursor.step);
      const checkpoint = await this.#writeMakingRoom(ledger, cursor, committed);
      this.#newest = checkpoint;
      await faultPoint("coordinator.checkpointWritten", cursor.step);
      const { step, digest, sizeBytes } = checkpoint.manifest;
      const durationMs = Math.round(performance.now() - startedAtMs);
      logger.info({ event: "checkpointWritten", step, digest, sizeBytes, durationMs }, "a checkpoint is written");
      if (this.#failures > 0) logger.info({ event: "durableAgain", step }, "checkpoints can be written again");
      this.#failures = 0;
      book.setLive(jobId, { checkpointStep: step, checkpointDigest: digest, notDurable: "", checkpointWarning: "" });
      book.note(jobId, { checkpointStep: step });
      metrics.checkpoint(checkpoint.manifest);
      this.#evaluate(checkpoint, false);
    } catch (error) {
      await this.#failed(cursor.step, error);
      return false;
    }
    await this.#retain(this.#options.spec.checkpoints.keepLast);
    return true;
  }

  /** On a full disk the checkpoint that this one will replace is deleted first, never the newest one. */
  async #writeMakingRoom(ledger: Ledger, cursor: CheckpointCursor, committed: Committed): Promise<StoredCheckpoint> {
    const { jobId, spec, checkpoints } = this.#options;
    const write = () => {
      const holders = [...ledger.holders];
      const pull = (ref: string, from: string[], offset: number, length: number) =>
        this.#pull(cursor.step, ref, from, offset, length);
      const readModel = ledger.slices
        ? slicedModel(jobId, cursor.step, parameterLayout(spec.model).size, holders, ledger.slices, pull)
        : (offset: number, length: number) => pull(modelRef(jobId, cursor.step), holders, offset, length);
      return checkpoints.write({ jobId, spec, cursor, ...committed, readModel });
    };
    try {
      return await write();
    } catch (error) {
      if (isOutOfSpace(error) && (await this.#retain(spec.checkpoints.keepLast - 1)) > 0) return write();
      throw error;
    }
  }

  async #failed(step: number, error: unknown): Promise<void> {
    const { jobId, book, checkpoints, logger } = this.#options;
    this.#retryAtMs = performance.now() + retryDelayMs(++this.#failures);
    const free = await freeBytes(checkpoints.parent);
    const why = error instanceof Error ? error.message : String(error);
    const advice = isOutOfSpace(error)
      ? ` Free some space there (${free ?? "unknown"} bytes are free) or lower checkpoints.keepLast.`
      : "";
    const notDurable = `the checkpoint of step ${step} could not be written to ${checkpoints.parent}: ${why}.${advice}`;
    book.setLive(jobId, { notDurable });
    logger.warn(
      { event: "checkpointFailed", step, freeBytes: free, retryInMs: Math.round(this.retryInMs), err: error },
      `a checkpoint could not be written; training goes on and it is tried again.${advice}`,
    );
  }

  /** From the first holder that delivers; one that does not is not asked again for this checkpoint. */
  async #pull(step: number, ref: string, holders: string[], offset: number, length: number): Promise<Uint8Array> {
    for (let workerId = holders[0]; workerId !== undefined; workerId = holders[0]) {
      const worker = this.#options.workers.get(workerId);
      try {
        if (worker) return (await pullTensor(worker.tensors, ref, { offset, length, signal: worker.gone })).data;
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

  #evaluate({ manifest }: StoredCheckpoint, isLast: boolean): void {
    const { jobId, spec, evaluations } = this.#options;
    const { step, digest } = manifest;
    evaluations.add({ jobId, step, digest }, planEvaluations(spec.evaluations, spec.checkpoints, { step, isLast }));
  }

  /** @returns how many were deleted */
  #retain(keepLast: number): Promise<number> {
    const { keepEvery } = this.#options.spec.checkpoints;
    return retainCheckpoints({ ...this.#options, policy: { keepLast, keepEvery } });
  }
}
