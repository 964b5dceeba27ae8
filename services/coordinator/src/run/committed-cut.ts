import { isHeldBy, tokensBefore } from "@segue/core";
import type { CutStep } from "../feed/step-cutter.js";
import { SegmentFeed } from "../feed/segment-feed.js";
import { FILES } from "../checkpoints/manifest.js";
import { CheckpointKeeper } from "./checkpoint-keeper.js";
import { LearningRates } from "./learning-rates.js";
import { LaneStateStore } from "./lane-states.js";
import type { RunnerParts } from "./runner-parts.js";

/** Where a job stands besides its weights: data cursor, lane states, checkpoints. Commits move all of it on, a restore takes all of it back. */
export class CommittedCut {
  readonly #parts: RunnerParts;
  readonly #states: LaneStateStore;
  readonly keeper: CheckpointKeeper;
  #rates: LearningRates | undefined;
  #feed: SegmentFeed | undefined;

  constructor(parts: RunnerParts) {
    this.#parts = parts;
    this.#states = new LaneStateStore(parts.jobId, parts.spec, parts.registry);
    this.keeper = new CheckpointKeeper(parts);
  }

  /** The segments after the committed step; there is none before the first restore. */
  get feed(): SegmentFeed {
    if (!this.#feed) throw new Error("a round before the feed was opened");
    return this.#feed;
  }

  /** Of the job's steps; as {@link feed}. */
  get rates(): LearningRates {
    if (!this.#rates) throw new Error("a round before the documents were opened");
    return this.#rates;
  }

  /**
   * Goes to the newest checkpoint, or to the beginning when none was ever written.
   * @param signal gives up waiting for the bucket
   * @throws SegueError see isDataTrouble, isCheckpointTrouble, isBucketAway: nothing has changed then but that there is no feed
   */
  async restore(signal?: AbortSignal): Promise<void> {
    const { checkpoints, data, book, spec, jobId, ledger, logger } = this.#parts;
    await this.keeper.settle();
    const written = book.get(jobId).record.checkpointStep;
    const checkpoint = await checkpoints.loadNewest(spec, written, signal);
    const step = checkpoint?.cursor.step ?? 0;
    await this.#feed?.close();
    const from = {
      cursor: checkpoint?.cursor.data,
      fingerprint: book.get(jobId).record.dataFingerprint,
      tokenizerSha256: checkpoint?.manifest.files[FILES.tokenizer]?.sha256,
    };
    this.#feed = new SegmentFeed(await data.open(spec, from), step);
    this.#rates ??= this.#countSteps(this.#feed.fingerprint);
    ledger.apply({ type: "restored", step, weightsDigest: checkpoint?.manifest.weightsDigest ?? "" });
    if (checkpoint) this.#states.commit(step, checkpoint.states);
    else this.#states.clear();
    this.keeper.restored(checkpoint, written);
    if (checkpoint) book.note(jobId, { checkpointStep: step });
    const { loss = 0, documentsRead = 0, documentsDroppedShort = 0 } = checkpoint?.cursor ?? {};
    const digest = checkpoint?.manifest.digest;
    book.setLive(jobId, {
      step,
      loss,
      documentsRead,
      documentsDroppedShort,
      checkpointStep: step,
      checkpointDigest: digest ?? "",
      leftOut: this.#feed.leftOut.join("; "),
    });
    logger.info({ event: "jobRestored", step, digest }, "the job is at a checkpoint or its start");
  }

  /** Follows the ledger to a step just committed. `states`: of every shard; `cut`: of the last step before it; `loss`: of that step. */
  commit(states: readonly Uint8Array[], { cursor, documentsRead, documentsDroppedShort }: CutStep, loss: number): void {
    const { step, weightsDigest } = this.#parts.ledger.state;
    const { feed } = this;
    this.#states.commit(step, states);
    feed.discardBefore(step);
    this.keeper.committed(
      { step, tokens: tokensBefore(this.#parts.spec, step), loss, documentsRead, documentsDroppedShort, data: cursor },
      { eosId: feed.eosId, tokenizerJson: feed.tokenizerJson, states, weightsDigest },
    );
  }

  /** Writes the committed step in the background if a checkpoint is due. */
  checkpointIfDue(): void {
    const { ledger } = this.#parts;
    const { step, totalSteps } = ledger.state;
    if (!this.keeper.isDue(step, totalSteps)) return;
    void this.keeper.start(ledger.state).then((written) => written && ledger.apply({ type: "checkpointWritten", step }));
  }

  /** Writes the committed step unless a checkpoint of it exists. @returns false when nobody holds it any more or the disk refuses */
  async makeDurable(): Promise<boolean> {
    const { ledger } = this.#parts;
    await this.keeper.settle();
    const { step, durableStep } = ledger.state;
    if (step === durableStep) return true;
    if (!isHeldBy(ledger.state) || !(await this.keeper.start(ledger.state))) return false;
    ledger.apply({ type: "checkpointWritten", step });
    return true;
  }

  /** Behind the first opening of the documents, which finds everything that is wrong with them. */
  #countSteps(fingerprint: unknown): LearningRates {
    const { spec, data } = this.#parts;
    // Jobs of before decay to train.steps, whether their documents last or not.
    const rates = new LearningRates(spec, spec.schedule.revision === 1 ? undefined : data.countSteps?.(spec, fingerprint));
    void rates.counted?.then(
      (steps) => this.#counted(steps),
      () => undefined,
    );
    return rates;
  }

  /** The steps that the documents give are known: the schedule ends with them. */
  #counted(steps: number): void {
    const { book, jobId, ledger, logger, spec } = this.#parts;
    book.note(jobId, { dataSteps: steps < spec.train.steps ? steps : undefined });
    if (steps >= ledger.state.totalSteps) return;
    logger.info(
      { event: "documentsCounted", steps, of: spec.train.steps },
      "the documents end before the steps that were asked for",
    );
    ledger.apply({ type: "dataEnded", step: steps });
  }

  /** Frees memory and files at once; errors are logged. */
  close(): void {
    this.#rates?.close();
    this.#states.clear();
    this.#feed
      ?.close()
      .catch((error: unknown) => this.#parts.logger.warn({ event: "feedCloseFailed", err: error }, "closing the data failed"));
  }
}
