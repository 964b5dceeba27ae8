import { setTimeout as sleep } from "node:timers/promises";
import {
  apply,
  createLedger,
  decide,
  SegueError,
  tokensPerStep,
  type Decision,
  type Intent,
  type JobSpec,
  type Ledger,
  type LedgerEvent,
} from "@segue/core";
import type { TensorRegistry } from "@segue/protocol";
import type { Logger } from "@segue/runtime";
import { Bell } from "../async-queue.js";
import type { CheckpointStore } from "../checkpoints/checkpoint-store.js";
import type { DataSource } from "../feed/step-cutter.js";
import { SegmentFeed } from "../feed/segment-feed.js";
import type { JobBook } from "../jobs/job-book.js";
import type { JobMetrics } from "../metrics/job-metrics.js";
import { engineOn, type Demand } from "../workers/allocate.js";
import type { AttachedWorker } from "../workers/attached-worker.js";
import type { WorkerMessage } from "../workers/worker-pool.js";
import { CheckpointKeeper, type Enqueue } from "./checkpoint-keeper.js";
import { Dispatcher } from "./dispatcher.js";
import { LaneStateStore, pullLaneStates, STATES_PULL_FAILED } from "./lane-states.js";
import { roundSteps, smoothedStepMs } from "./round-steps.js";
import { roundMetrics } from "./step-metrics.js";

export interface RunnerDependencies {
  readonly book: JobBook;
  readonly checkpoints: CheckpointStore;
  readonly registry: TensorRegistry;
  readonly data: DataSource;
  readonly metrics: JobMetrics;
  readonly enqueue: Enqueue;
  readonly logger: Logger;
  /** Where this coordinator's Tensors service answers, as workers reach it. */
  readonly address: string;
  /** The job has no more use for the worker. */
  readonly release: (worker: AttachedWorker) => void;
}

/** pause and shutdown end at a round boundary with a checkpoint; a shutdown leaves the job's phase, so that it continues by itself. */
export type StopReason = "pause" | "shutdown" | "cancel";

const MAX_FAILURES = 5;
const FAILURE_PAUSE_MS = 250;

/**
 * Trains one job: a thin shell around the ledger. Events change the ledger at once; the loop asks `decide` what to do next and does it.
 * Whatever it awaited, it looks at the ledger again afterwards.
 */
export class JobRunner {
  readonly jobId: string;
  readonly #spec: JobSpec;
  readonly #deps: RunnerDependencies;
  readonly #logger: Logger;
  readonly #bell = new Bell();
  readonly #workers = new Map<string, AttachedWorker>();
  readonly #dispatcher: Dispatcher;
  readonly #states: LaneStateStore;
  readonly #keeper: CheckpointKeeper;
  #ledger: Ledger;
  #feed: SegmentFeed | undefined;
  #generationOver = new AbortController();
  #stop: StopReason | undefined;
  #abandon = false;
  #fatal: Error | undefined;
  #lastFailure: SegueError | undefined;
  #attemptStarted = false;
  #stepMs: number | undefined;
  #previousSteps = 0;
  #roundStartedAtMs = 0;
  #done: Promise<void> | undefined;

  constructor(jobId: string, deps: RunnerDependencies) {
    const { spec } = deps.book.get(jobId).record;
    this.jobId = jobId;
    this.#spec = spec;
    this.#deps = deps;
    this.#logger = deps.logger.child({ jobId });
    this.#dispatcher = new Dispatcher({ jobId, spec, address: deps.address, workers: this.#workers });
    this.#states = new LaneStateStore(jobId, spec, deps.registry);
    this.#keeper = new CheckpointKeeper({ ...deps, jobId, spec, logger: this.#logger, workers: this.#workers });
    this.#ledger = createLedger({ shards: spec.batch.shards, totalSteps: spec.train.steps, step: 0, weightsDigest: "" });
  }

  /** Runs until the job ends or is stopped; errors end up in the job's phase, never here. Idempotent. */
  run(): Promise<void> {
    this.#done ??= this.#run();
    return this.#done;
  }

  get demand(): Demand {
    const { min, max } = this.#spec.workers;
    const { engine } = this.#spec.train;
    const staying = [...this.#workers.values()].filter((worker) => !worker.draining);
    const [first] = staying;
    return {
      jobId: this.jobId,
      has: staying.length,
      min,
      max: this.#stop === undefined ? Math.min(max, this.#spec.batch.shards) : 0,
      engine,
      engineInUse: first && engineOn(first.hello, engine),
    };
  }

  shardsOf(workerId: string): readonly number[] {
    return this.#ledger.members.find((member) => member.workerId === workerId)?.shards ?? [];
  }

  claim(worker: AttachedWorker): void {
    worker.jobId = this.jobId;
    this.#workers.set(worker.workerId, worker);
    this.#bell.ring();
  }

  workerGone(worker: AttachedWorker): void {
    if (!this.#workers.delete(worker.workerId)) return;
    this.#apply({ type: "workerGone", workerId: worker.workerId });
  }

  /** The worker's circumstances have changed (it drains). */
  workerChanged(): void {
    this.#bell.ring();
  }

  message({ workerId }: AttachedWorker, message: WorkerMessage): void {
    const { generation } = message.value;
    switch (message.case) {
      case "ready":
        this.#deps.book.setLive(this.jobId, { engine: message.value.engine });
        this.#apply({ type: "memberReady", generation, workerId, step: message.value.step });
        break;
      case "roundDone": {
        const { firstStep, steps, weightsDigest, results } = message.value;
        this.#apply({ type: "roundReported", generation, workerId, firstStep, steps, report: { weightsDigest, results } });
        break;
      }
      case "failure": {
        const { code, message: text, peerWorkerId } = message.value;
        this.#failed(generation, workerId, new SegueError(code, `${workerId}: ${text}`, { status: "ABORTED" }), peerWorkerId);
        break;
      }
    }
  }

  /** Stops at the next round boundary; `abandon` (and a cancellation) gives up the round in flight. May be called again to hurry. */
  stop(reason: StopReason, abandon = reason === "cancel"): void {
    if (this.#stop !== "cancel") this.#stop = reason;
    this.#abandon ||= abandon;
    this.#bell.ring();
  }

  async #run(): Promise<void> {
    const { book } = this.#deps;
    try {
      await this.#restore();
      await this.#loop();
    } catch (error) {
      const code = error instanceof SegueError ? error.code : "INTERNAL";
      const reason = error instanceof Error ? error.message : String(error);
      this.#logger.error({ event: "jobFailed", code, err: error }, "the job failed");
      await book.setPhase(this.jobId, "FAILED", `${code}: ${reason}`, { errorCode: code });
    } finally {
      this.#end();
    }
  }

  async #loop(): Promise<void> {
    for (;;) {
      if (this.#fatal) throw this.#fatal;
      if (this.#stop === undefined) await this.#letLeaversGo();
      const decision = this.#decide();
      switch (decision.type) {
        case "wait":
          await this.#reportWaiting();
          await this.#bell.wait();
          break;
        case "restore":
          await this.#restore();
          break;
        case "form":
          await this.#form(decision.workerIds);
          break;
        case "dissolve":
          this.#apply({ type: "dissolved" });
          break;
        case "startRound":
          await this.#startRound(this.#spec);
          break;
        case "commit":
          await this.#commit(this.#spec);
          break;
        case "stop":
          await this.#rest();
          return;
        case "finish":
          if (await this.#finish()) return;
          break;
        case "fail":
          throw this.#failure(decision);
      }
    }
  }

  #decide(): Decision {
    const intent: Intent = this.#stop === undefined ? "run" : this.#abandon ? "abandon" : "settle";
    const available = [...this.#workers.values()].filter((worker) => !worker.draining).map(({ workerId }) => workerId);
    const { min: minWorkers, max: maxWorkers } = this.#spec.workers;
    return decide(this.#ledger, { intent, available, minWorkers, maxWorkers, maxFailures: MAX_FAILURES });
  }

  /** Changes the ledger; members of a generation that became void hear of it. */
  #apply(event: LedgerEvent): void {
    const before = this.#ledger;
    this.#ledger = apply(before, event);
    if (before.phase !== "none" && this.#ledger.phase === "none") {
      this.#generationOver.abort();
      this.#dispatcher.withdraw(before);
      this.#deps.book.setLive(this.jobId, { workers: 0 });
    }
    this.#bell.ring();
  }

  #failed(generation: number, workerId: string, error: SegueError, peerWorkerId = ""): void {
    this.#logger.warn({ event: "memberFailed", workerId, generation, code: error.code, peerWorkerId }, error.message);
    this.#lastFailure = error;
    this.#apply({ type: "memberFailed", generation, workerId });
  }

  /** Goes to the newest checkpoint, or to the beginning. */
  async #restore(): Promise<void> {
    const { checkpoints, data, book } = this.#deps;
    await this.#keeper.settle();
    const checkpoint = await checkpoints.loadNewest(this.#spec);
    const step = checkpoint?.cursor.step ?? 0;
    await this.#feed?.close();
    this.#feed = new SegmentFeed(await data.open(this.#spec, checkpoint?.cursor.data), step);
    this.#apply({ type: "restored", step, weightsDigest: checkpoint?.manifest.weightsDigest ?? "" });
    if (checkpoint) this.#states.commit(step, checkpoint.states);
    else this.#states.clear();
    this.#keeper.restored(checkpoint);
    this.#attemptStarted = false;
    const { loss = 0, documentsRead = 0, documentsDroppedShort = 0 } = checkpoint?.cursor ?? {};
    book.setLive(this.jobId, {
      step,
      loss,
      documentsRead,
      documentsDroppedShort,
      checkpointStep: step,
      checkpointDigest: checkpoint?.manifest.digest ?? "",
    });
    this.#logger.info(
      { event: "jobRestored", step, digest: checkpoint?.manifest.digest },
      "the job is at a checkpoint or its start",
    );
  }

  async #form(workerIds: readonly string[]): Promise<void> {
    if (this.#ledger.failures > 0) {
      // A failure is often a peer that is about to be found lost; its heartbeats decide.
      await sleep(FAILURE_PAUSE_MS * this.#ledger.failures);
      if (!workerIds.every((workerId) => this.#workers.has(workerId))) return;
    }
    const { book } = this.#deps;
    if (!this.#attemptStarted) {
      this.#attemptStarted = true;
      await book.setPhase(this.jobId, "RUNNING", "", { attempt: book.get(this.jobId).record.attempt + 1 });
    } else {
      await book.setPhase(this.jobId, "RUNNING", "");
    }
    // A member that joins at a step drops its snapshots of earlier ones.
    await this.#keeper.settle(this.#ledger.step);
    const decision = this.#decide();
    if (decision.type !== "form") return;
    this.#generationOver = new AbortController();
    this.#apply({ type: "generationFormed", workerIds: decision.workerIds });
    const { generation, step, members } = this.#ledger;
    this.#logger.info({ event: "generationFormed", generation, step, members }, "a generation is formed");
    book.setLive(this.jobId, { workers: members.length });
    this.#dispatcher.join(this.#ledger);
  }

  async #startRound({ rounds, checkpoints }: JobSpec): Promise<void> {
    const feed = this.#requireFeed();
    const { generation, step, totalSteps } = this.#ledger;
    const wanted = roundSteps({
      step,
      totalSteps,
      targetMs: rounds.targetMs,
      maxSteps: rounds.maxSteps,
      checkpointEverySteps: checkpoints.everySteps,
      stepMs: this.#stepMs,
      previousSteps: this.#previousSteps,
    });
    await this.#dispatcher.sendSegments(this.#ledger, feed, step + wanted);
    // Members drop the snapshot of a step when the round after it is known to be committed, which RunRound tells them.
    await this.#keeper.settle(step);
    if (feed.endStep !== undefined && feed.endStep < totalSteps) this.#apply({ type: "dataEnded", step: feed.endStep });
    const decision = this.#decide();
    if (this.#ledger.generation !== generation || decision.type !== "startRound") return;
    const steps = Math.min(wanted, this.#ledger.totalSteps - step);
    this.#apply({ type: "roundStarted", steps });
    this.#roundStartedAtMs = performance.now();
    this.#previousSteps = steps;
    this.#dispatcher.runRound(this.#ledger, this.#keeper.isDue(step + steps, this.#ledger.totalSteps));
    this.#dispatcher
      .sendSegments(this.#ledger, feed, Math.min(step + 2 * steps, this.#ledger.totalSteps))
      .catch((error: unknown) => {
        this.#fatal = error instanceof Error ? error : new Error(String(error));
        this.#bell.ring();
      });
  }

  async #commit(spec: JobSpec): Promise<void> {
    const { book, metrics } = this.#deps;
    const feed = this.#requireFeed();
    const { round, members, generation } = this.#ledger;
    if (!round) return;
    const roundMs = performance.now() - this.#roundStartedAtMs;
    const endStep = round.firstStep + round.steps;
    const states = await this.#pullStates(endStep);
    const cut = await feed.get(endStep - 1);
    if (!states || !cut || this.#ledger.generation !== generation || this.#ledger.phase !== "reported") return;

    const weights = new Map<number, number>();
    for (let step = round.firstStep; step < endStep; step++) weights.set(step, (await feed.get(step))?.totalWeight ?? 0);
    const steps = roundMetrics(members, round, (step) => weights.get(step) ?? 0);
    const last = steps.at(-1);
    this.#apply({ type: "roundCommitted" });
    this.#states.commit(endStep, states);
    feed.discardBefore(endStep);
    this.#stepMs = smoothedStepMs(this.#stepMs, roundMs, round.steps);
    const { documentsRead, documentsDroppedShort } = cut;
    const loss = last?.loss ?? 0;
    this.#keeper.committed(
      { step: endStep, tokens: endStep * tokensPerStep(spec), loss, documentsRead, documentsDroppedShort, data: cut.cursor },
      { eosId: feed.eosId, tokenizerJson: feed.tokenizerJson, states, weightsDigest: this.#ledger.weightsDigest },
    );
    book.setLive(this.jobId, {
      step: endStep,
      loss,
      documentsRead,
      documentsDroppedShort,
      learningRate: last?.learningRate ?? 0,
      gradientNorm: last?.gradientNorm ?? 0,
      tokensPerSecond: (1_000 * round.steps * tokensPerStep(spec)) / (performance.now() - this.#roundStartedAtMs),
    });
    metrics.steps(book.get(this.jobId), steps);
    this.#logger.debug({ event: "roundCommitted", step: endStep, steps: round.steps, loss, roundMs }, "a round is committed");
    if (this.#keeper.isDue(endStep, this.#ledger.totalSteps)) {
      void this.#keeper.start(this.#ledger).then((written) => written && this.#apply({ type: "checkpointWritten", step: endStep }));
    }
  }

  /** undefined when the round was voided meanwhile; a member that cannot deliver has failed. */
  async #pullStates(step: number): Promise<Uint8Array[] | undefined> {
    const { signal } = this.#generationOver;
    const { generation, members } = this.#ledger;
    const owners = members.flatMap((member) => {
      const worker = this.#workers.get(member.workerId);
      return worker ? [{ ...member, worker }] : [];
    });
    if (owners.length < members.length) return undefined;
    try {
      return await pullLaneStates(this.jobId, this.#spec, step, owners, signal);
    } catch (error) {
      if (!signal.aborted && error instanceof SegueError && error.code === STATES_PULL_FAILED) {
        this.#failed(generation, error.violations?.[0]?.field ?? "", error);
        return undefined;
      }
      if (signal.aborted) return undefined;
      throw error;
    }
  }

  /** Writes the committed step unless a checkpoint of it exists. @returns false when nobody holds it any more */
  async #makeDurable(): Promise<boolean> {
    await this.#keeper.settle();
    const { step, durableStep, holders } = this.#ledger;
    if (step === durableStep) return true;
    if (holders.length === 0 || !(await this.#keeper.start(this.#ledger))) return false;
    this.#apply({ type: "checkpointWritten", step });
    return true;
  }

  /** Releases draining workers that are no members (any more), after saving what only they hold. */
  async #letLeaversGo(): Promise<void> {
    const { phase, holders, members } = this.#ledger;
    const leavers = [...this.#workers.values()].filter(({ draining, workerId }) => {
      return draining && !members.some((member) => member.workerId === workerId);
    });
    if (leavers.length === 0 || (phase !== "none" && phase !== "ready")) return;
    const isHeldByOthers = holders.some((workerId) => this.#workers.get(workerId)?.draining === false);
    if (phase === "none" && !isHeldByOthers) await this.#makeDurable();
    for (const worker of leavers) this.#release(worker);
  }

  async #rest(): Promise<void> {
    if (this.#ledger.phase !== "none") this.#apply({ type: "dissolved" });
    if (this.#stop !== "cancel" && !(await this.#makeDurable())) {
      this.#logger.warn(
        { event: "checkpointMissed", step: this.#ledger.step },
        "nobody holds the committed step; the newest checkpoint counts",
      );
    }
    this.#releaseAll();
    const { book } = this.#deps;
    if (this.#stop === "pause") await book.setPhase(this.jobId, "PAUSED", "paused on request");
    if (this.#stop === "cancel") await book.setPhase(this.jobId, "CANCELLED", "cancelled on request");
    this.#logger.info({ event: "jobStopped", reason: this.#stop, step: this.#ledger.step }, "the job is stopped");
  }

  async #finish(): Promise<boolean> {
    const before = this.#ledger;
    if (!(await this.#makeDurable())) {
      // Had a holder been lost, the ledger would know; so it is the disk, and trying again would not help.
      if (this.#ledger === before) {
        throw new SegueError("CHECKPOINT_FAILED", "The last checkpoint could not be written; see the log.", { status: "INTERNAL" });
      }
      return false;
    }
    const { step, totalSteps } = this.#ledger;
    await this.#keeper.evaluateLast();
    this.#releaseAll();
    const ended = step < this.#spec.train.steps ? `the documents ended at step ${totalSteps}` : "";
    await this.#deps.book.setPhase(this.jobId, "SUCCEEDED", ended);
    this.#logger.info({ event: "jobSucceeded", step }, "the job is done");
    return true;
  }

  async #reportWaiting(): Promise<void> {
    if (this.#ledger.phase !== "none") return;
    const { has, min } = this.demand;
    await this.#deps.book.setPhase(this.jobId, "WAITING", `waiting for workers: ${has} of at least ${min}`);
  }

  #failure(decision: Extract<Decision, { type: "fail" }>): SegueError {
    if (decision.reason === "tooManyFailures") {
      const last = this.#lastFailure;
      return new SegueError(
        last?.code ?? "WORKERS_FAILED",
        `gave up after ${MAX_FAILURES} failures; the last: ${last?.message ?? ""}`,
        {
          status: "ABORTED",
        },
      );
    }
    const sides = decision.workers.map(({ workerId, weightsDigest }) => {
      return `${workerId} (${this.#workers.get(workerId)?.hello.device ?? "gone"}) has ${weightsDigest}`;
    });
    const message = `after a round from step ${this.#ledger.step} the weights differ: ${sides.join(", ")}`;
    return new SegueError("DIGEST_MISMATCH", message, { status: "DATA_LOSS" });
  }

  #requireFeed(): SegmentFeed {
    if (!this.#feed) throw new Error("a round before the feed was opened");
    return this.#feed;
  }

  #release(worker: AttachedWorker): void {
    worker.send({ case: "release", value: { jobId: this.jobId } });
    worker.jobId = undefined;
    this.#workers.delete(worker.workerId);
    this.#apply({ type: "workerGone", workerId: worker.workerId });
    this.#deps.release(worker);
  }

  /** The job is over or at rest: it takes no more workers. */
  #releaseAll(): void {
    if (this.#ledger.phase !== "none") this.#apply({ type: "dissolved" });
    this.#stop ??= "shutdown";
    for (const worker of [...this.#workers.values()]) this.#release(worker);
  }

  #end(): void {
    this.#releaseAll();
    this.#deps.book.setLive(this.jobId, { workers: 0, tokensPerSecond: 0 });
    this.#states.clear();
    this.#feed
      ?.close()
      .catch((error: unknown) => this.#logger.warn({ event: "feedCloseFailed", err: error }, "closing the data failed"));
  }
}
