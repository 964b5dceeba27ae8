import {
  createLedger,
  decide,
  isHeldBy,
  SegueError,
  shardsPerPlacement,
  type Decision,
  type Intent,
  type JobFailure,
  type Ledger,
  type LedgerEvent,
} from "@segue/core";
import type { Logger } from "@segue/runtime";
import { Bell } from "../async-queue.js";
import { isBucketAway, isCheckpointTrouble } from "../checkpoints/checkpoint-trouble.js";
import { isDataTrouble } from "../feed/step-cutter.js";
import { retryDelayMs } from "../store/storage-trouble.js";
import type { Demand } from "../workers/allocate.js";
import type { AttachedWorker } from "../workers/attached-worker.js";
import { kindOn } from "../workers/kind.js";
import type { WorkerMessage } from "../workers/worker-pool.js";
import { CommittedCut } from "./committed-cut.js";
import { Dispatcher } from "./dispatcher.js";
import { extendedRun, jobFailure, mostFailures, type FailureRun, type MemberFailure } from "./failures.js";
import { LiveLedger } from "./live-ledger.js";
import { Membership } from "./membership.js";
import { Rounds } from "./rounds.js";
import type { RunnerDependencies, RunnerParts } from "./runner-parts.js";

/** pause and shutdown end at a round boundary with a checkpoint; a shutdown leaves the job's phase, so that it continues by itself. */
export type StopReason = "pause" | "shutdown" | "cancel";

export const PAUSED_ON_REQUEST = "paused on request";

/**
 * Trains one job: a thin shell around the ledger. Events change the ledger at once; the loop asks `decide` what to do next and does it.
 * Whatever it awaited, it looks at the ledger again afterwards.
 */
export class JobRunner {
  readonly jobId: string;
  #markOpened: () => void = () => undefined;
  /** Resolves when the job's documents are open, never when they could not be opened. */
  readonly opened = new Promise<void>((resolve) => (this.#markOpened = resolve));
  readonly #parts: RunnerParts;
  readonly #logger: Logger;
  readonly #bell = new Bell();
  readonly #cut: CommittedCut;
  readonly #membership: Membership;
  readonly #rounds: Rounds;
  /** trouble: its documents or checkpoints are not as they were; it ends as a pause does. */
  #stop: StopReason | "trouble" | undefined;
  #trouble: SegueError | undefined;
  /** Aborted when the job is to stop. */
  readonly #stopping = new AbortController();
  #waitsForBucket = false;
  #abandon = false;
  #fatal: Error | undefined;
  #lastFailure: SegueError | undefined;
  #failureRun: FailureRun | undefined;
  #done: Promise<void> | undefined;

  constructor(jobId: string, deps: RunnerDependencies) {
    const { spec } = deps.book.get(jobId).record;
    const workers = new Map<string, AttachedWorker>();
    const origin = createLedger({
      shards: spec.batch.shards,
      shardsPerPlacement: shardsPerPlacement(spec),
      totalSteps: spec.train.steps,
      step: 0,
      weightsDigest: "",
      sharded: spec.sync.optimizer === "sharded",
    });
    this.jobId = jobId;
    this.#logger = deps.logger.child({ jobId });
    this.#parts = {
      ...deps,
      jobId,
      spec,
      workers,
      logger: this.#logger,
      ledger: new LiveLedger(origin, (event, before, after) => this.#applied(event, before, after)),
      dispatcher: new Dispatcher({ jobId, spec, address: deps.address, workers }),
    };
    deps.events.opened(spec, origin);
    this.#cut = new CommittedCut(this.#parts);
    this.#membership = new Membership(this.#parts, this.#cut, () => this.#decide());
    this.#rounds = new Rounds({
      parts: this.#parts,
      cut: this.#cut,
      mayStart: () => this.#decide().type === "startRound",
      onFailed: (generation, workerId, error) => {
        this.#failed(generation, workerId, error, { code: error.code, message: error.message, isOwn: false });
      },
      onFatal: (error) => {
        if (isTrouble(error)) void this.#pauseFor(error);
        else this.#fatal = error;
        this.#bell.ring();
      },
    });
  }

  /** Runs until the job ends or is stopped; errors end up in the job's phase, never here. Idempotent. */
  run(): Promise<void> {
    this.#done ??= this.#run();
    return this.#done;
  }

  get demand(): Demand {
    const { workers, batch, train } = this.#parts.spec;
    const { staying } = this.#membership;
    const [first] = staying;
    const places = Math.min(workers.max, batch.shards);
    return {
      jobId: this.jobId,
      has: staying.length,
      min: workers.min,
      max: this.#stop === undefined && !this.#waitsForBucket ? places : 0,
      // Only members are replaced; a straggler that found its successor waits for the next round boundary.
      toReplace: Math.max(0, staying.filter(({ straggler }) => straggler).length - Math.max(0, staying.length - places)),
      engine: train.engine,
      kindInUse: first && kindOn(first.computing, train.engine),
    };
  }

  get priority(): number {
    return this.#parts.spec.priority;
  }

  shardsOf(workerId: string): readonly number[] {
    return this.#ledger.members.find((member) => member.workerId === workerId)?.shards ?? [];
  }

  claim(worker: AttachedWorker): void {
    worker.jobId = this.jobId;
    this.#parts.workers.set(worker.workerId, worker);
    this.#bell.ring();
  }

  workerGone({ workerId }: AttachedWorker): void {
    if (this.#parts.workers.delete(workerId)) this.#parts.ledger.apply({ type: "workerGone", workerId });
  }

  /** The pool has changed, or what its workers do: a job that waits says again what for. */
  poolChanged(): void {
    if (this.#ledger.phase === "none") this.#bell.ring();
    const { book, leftAside: leftAsideOf } = this.#parts;
    const leftAside = leftAsideOf(this.demand);
    if (leftAside === book.get(this.jobId).live.leftAside) return;
    if (leftAside !== "") this.#logger.info({ event: "workersLeftAside" }, leftAside);
    book.setLive(this.jobId, { leftAside });
  }

  message({ workerId }: AttachedWorker, message: WorkerMessage): void {
    const { book, ledger } = this.#parts;
    const { generation } = message.value;
    switch (message.case) {
      case "ready":
        // All say the same, and every change of a live status is told to all who watch.
        if (book.get(this.jobId).live.engine !== message.value.engine) book.setLive(this.jobId, { engine: message.value.engine });
        ledger.apply({ type: "memberReady", generation, workerId, step: message.value.step });
        break;
      case "roundDone": {
        const { firstStep, steps, weightsDigest, results, elapsedMs } = message.value;
        const report = { weightsDigest, results, elapsedMs };
        ledger.apply({ type: "roundReported", generation, workerId, firstStep, steps, report });
        break;
      }
      case "failure": {
        const { code, message: text, peerWorkerId } = message.value;
        const error = new SegueError(code, `${workerId}: ${text}`, { status: "ABORTED" });
        const isOwn = peerWorkerId === "" && code !== "PEER_UNREACHABLE";
        this.#failed(generation, workerId, error, { code, message: text, isOwn }, peerWorkerId);
        break;
      }
    }
  }

  /** Stops at the next round boundary; `abandon` (and a cancellation) gives up the round in flight. May be called again to hurry. */
  stop(reason: StopReason, abandon = reason === "cancel"): void {
    if (this.#stop !== "cancel") this.#stop = reason;
    this.#abandon ||= abandon;
    this.#stopping.abort();
    this.#bell.ring();
  }

  get #ledger(): Ledger {
    return this.#parts.ledger.state;
  }

  async #run(): Promise<void> {
    try {
      await this.#restore();
      if (this.#trouble === undefined) this.#markOpened();
      await this.#loop();
    } catch (error) {
      const code = error instanceof SegueError ? error.code : "INTERNAL";
      const reason = error instanceof Error ? error.message : String(error);
      this.#logger.error({ event: "jobFailed", code, err: error }, "the job failed");
      await this.#parts.book.setPhase(this.jobId, "FAILED", `${code}: ${reason}`, { errorCode: code });
    } finally {
      this.#releaseAll();
      this.#parts.book.setLive(this.jobId, { workers: 0, tokensPerSecond: 0 });
      this.#cut.close();
      await this.#parts.events.close();
    }
  }

  async #loop(): Promise<void> {
    for (;;) {
      if (this.#fatal) throw this.#fatal;
      if (this.#stop === undefined) await this.#membership.letLeaversGo();
      const decision = this.#decide();
      switch (decision.type) {
        case "wait":
          await this.#reportWaiting();
          await this.#bell.wait();
          break;
        case "restore":
          await this.#restore();
          this.#membership.restored();
          break;
        case "form":
          await this.#membership.form(decision.workerIds);
          break;
        case "dissolve":
          this.#parts.ledger.apply({ type: "dissolved" });
          break;
        case "startRound":
          await this.#minding(() => this.#rounds.start());
          break;
        case "commit":
          await this.#rounds.commit();
          break;
        case "expel":
          this.#membership.expel(decision.workers, decision.weightsDigest);
          break;
        case "dispute":
          this.#logger.error(
            { event: "roundDisputed", step: this.#ledger.step, workers: decision.workers },
            "the members' weights differ and nobody has a majority; the round runs again from what they agreed on",
          );
          this.#parts.ledger.apply({ type: "roundDisputed", workers: decision.workers });
          break;
        case "stop":
          await this.#rest();
          return;
        case "finish":
          if (await this.#finish()) return;
          break;
        case "fail":
          await this.#fail(decision.failure);
      }
    }
  }

  /** Goes to the newest checkpoint. While only the bucket has one and does not answer, the job waits without workers, or stops. */
  async #restore(): Promise<void> {
    const { book, wantsWorkers } = this.#parts;
    const { signal } = this.#stopping;
    for (let failures = 1; ; failures++) {
      try {
        await this.#minding(() => this.#cut.restore(signal));
        break;
      } catch (error) {
        if (!isBucketAway(error)) throw error;
        if (this.#stop !== undefined) break;
        const { code, message } = error;
        this.#logger.warn({ event: "waitsForBucket", code, err: error }, "the job waits for its checkpoint");
        this.#waitsForBucket = true;
        this.#membership.releaseAll();
        await book.setPhase(this.jobId, "WAITING", `${code}: ${message} The job waits for its checkpoint and asks again.`);
        await this.#untilRetry(retryDelayMs(failures));
        if (signal.aborted) break;
      }
    }
    if (!this.#waitsForBucket) return;
    this.#waitsForBucket = false;
    wantsWorkers();
  }

  /** Does what reads documents or checkpoints. */
  async #minding(read: () => Promise<void>): Promise<void> {
    try {
      await read();
    } catch (error) {
      if (!isTrouble(error)) throw error;
      await this.#pauseFor(error);
    }
  }

  /** What is in flight ends and is committed; nothing more is read. */
  async #pauseFor(error: SegueError): Promise<void> {
    const { code, message } = error;
    this.#logger.error({ event: "jobTrouble", code, err: error }, "the job pauses until this is put right");
    if (this.#stop !== undefined) return;
    this.#stop = "trouble";
    this.#trouble = error;
    this.#bell.ring();
    await this.#parts.book.setPhase(this.jobId, "PAUSING", `${code}: ${message}`, { errorCode: code });
  }

  #decide(): Decision {
    const intent: Intent = this.#stop === undefined ? "run" : this.#abandon ? "abandon" : "settle";
    const available = this.#membership.available.map(({ workerId }) => workerId);
    const { min: minWorkers, max: maxWorkers } = this.#parts.spec.workers;
    return decide(this.#ledger, { intent, available, minWorkers, maxWorkers, maxFailures: mostFailures(this.#failureRun) });
  }

  /** The loop looks at the ledger again, and members of a generation that became void hear of it. */
  #applied(event: LedgerEvent, before: Ledger, after: Ledger): void {
    this.#parts.events.record(event, before, after);
    if (before.phase !== "none" && after.phase === "none") {
      this.#parts.dispatcher.withdraw(before);
      this.#parts.book.setLive(this.jobId, { workers: 0, members: [] });
    }
    // One of many reports or joins: there is nothing to decide before the last.
    const isOneOfMany = after.phase === before.phase && (after.phase === "joining" || after.phase === "running");
    if (!isOneOfMany) this.#bell.ring();
  }

  #failed(generation: number, workerId: string, error: SegueError, failure: MemberFailure, peerWorkerId = ""): void {
    this.#logger.warn({ event: "memberFailed", workerId, generation, code: error.code, peerWorkerId }, error.message);
    this.#lastFailure = error;
    if (generation === this.#ledger.generation) this.#membership.memberFailed(error.code);
    const before = this.#ledger;
    // Of several members that fail in one generation the first counts.
    const run = extendedRun(this.#failureRun, failure, before.failures);
    this.#parts.ledger.apply({ type: "memberFailed", generation, workerId });
    if (this.#ledger !== before) this.#failureRun = run;
  }

  async #reportWaiting(): Promise<void> {
    if (this.#ledger.phase !== "none") return;
    await this.#parts.book.setPhase(this.jobId, "WAITING", this.#parts.shortage(this.demand));
  }

  /** Ends the job with what is committed made durable, as far as that is possible. */
  async #fail(failure: JobFailure): Promise<never> {
    const error = jobFailure(failure, {
      spec: this.#parts.spec,
      ledger: this.#ledger,
      lastFailure: this.#lastFailure,
      run: this.#failureRun,
      deviceOf: (workerId) => this.#parts.workers.get(workerId)?.hello.device,
    });
    if (this.#ledger.phase !== "none") this.#parts.ledger.apply({ type: "dissolved" });
    await this.#cut.makeDurable();
    throw error;
  }

  /** The job stops here for now (pause, shutdown) or for good (cancellation). */
  async #rest(): Promise<void> {
    const { book, ledger } = this.#parts;
    if (this.#ledger.phase !== "none") ledger.apply({ type: "dissolved" });
    while (this.#stop !== "cancel" && !(await this.#cut.makeDurable())) {
      // A pause waits until the disk takes the committed step; a shutdown has no time for that.
      if (this.#stop !== "shutdown" && isHeldBy(this.#ledger)) {
        await this.#untilRetry();
        continue;
      }
      this.#logger.warn(
        { event: "checkpointMissed", step: this.#ledger.step },
        "the committed step is lost; the newest checkpoint counts",
      );
      book.setLive(this.jobId, { step: this.#ledger.durableStep });
      break;
    }
    this.#releaseAll();
    const trouble = this.#stop === "trouble" ? this.#trouble : undefined;
    const reason = trouble ? `${trouble.code}: ${trouble.message} Put it back as it was and resume the job.` : PAUSED_ON_REQUEST;
    if (this.#stop === "trouble" || this.#stop === "pause") this.#parts.events.paused(reason, trouble?.code);
    // A paused job can be edited, which is recorded where these events end.
    await this.#parts.events.close();
    if (this.#stop === "trouble") await book.setPhase(this.jobId, "PAUSED", reason, { errorCode: trouble?.code });
    if (this.#stop === "pause") await book.setPhase(this.jobId, "PAUSED", reason);
    if (this.#stop === "cancel") await book.setPhase(this.jobId, "CANCELLED", "cancelled on request");
    this.#logger.info({ event: "jobStopped", reason: this.#stop, step: this.#ledger.step }, "the job is stopped");
  }

  async #finish(): Promise<boolean> {
    const before = this.#ledger;
    if (!(await this.#cut.makeDurable())) {
      // Had a holder been lost, the ledger would know; so it is the disk.
      if (this.#ledger === before) await this.#untilRetry();
      return false;
    }
    const { step, totalSteps } = this.#ledger;
    this.#cut.keeper.evaluateLast();
    this.#releaseAll();
    const { train, schedule } = this.#parts.spec;
    const isUndecayed = schedule.revision === 1 && schedule.decaySteps > 0;
    const undecayed = isUndecayed ? ", before the learning rate had decayed (schedule.revision 1)" : "";
    const ended = step < train.steps ? `the documents ended at step ${totalSteps}${undecayed}` : "";
    await this.#parts.book.setPhase(this.jobId, "SUCCEEDED", ended);
    this.#logger.info({ event: "jobSucceeded", step }, "the job is done");
    return true;
  }

  /** Until what failed (a checkpoint) is worth another attempt, or people or the cluster change something. */
  async #untilRetry(inMs = this.#cut.keeper.retryInMs): Promise<void> {
    const before = [this.#stop, this.#abandon, this.#ledger];
    const isUnchanged = (): boolean => before.every((value, i) => value === [this.#stop, this.#abandon, this.#ledger][i]);
    let isTime = false;
    const timer = setTimeout(() => {
      isTime = true;
      this.#bell.ring();
    }, inMs);
    while (!isTime && isUnchanged()) await this.#bell.wait();
    clearTimeout(timer);
  }

  /** The job is over or at rest: it takes no more workers. */
  #releaseAll(): void {
    this.#stop ??= "shutdown";
    this.#membership.releaseAll();
  }
}

/** What people can put right: the job waits for that, paused. */
function isTrouble(error: unknown): error is SegueError {
  return isDataTrouble(error) || isCheckpointTrouble(error);
}
