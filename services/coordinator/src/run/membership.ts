import { setTimeout as sleep } from "node:timers/promises";
import { isHeldBy, type Decision, type MemberDigest } from "@segue/core";
import { faultPoint } from "@segue/runtime";
import { kindOn } from "../workers/kind.js";
import type { AttachedWorker } from "../workers/attached-worker.js";
import type { CommittedCut } from "./committed-cut.js";
import { memberStatuses } from "./member-status.js";
import type { RunnerParts } from "./runner-parts.js";
import { chooseTransport, TRANSPORT_FAILURES, type Reach, type Transport, type TransportChoice } from "./transport.js";

const FAILURE_PAUSE_MS = 250;

/** Who works on one job: forms generations, lets leavers go, releases workers. */
export class Membership {
  readonly #parts: RunnerParts;
  readonly #cut: CommittedCut;
  readonly #decide: () => Decision;
  #attemptStarted = false;
  #transport: Transport | undefined;
  readonly #failedTransports = new Set<Transport>();

  /** @param decide what the ledger asks for now */
  constructor(parts: RunnerParts, cut: CommittedCut, decide: () => Decision) {
    this.#parts = parts;
    this.#cut = cut;
    this.#decide = decide;
  }

  /** Workers that the job has for longer: claimed and not leaving. */
  get staying(): AttachedWorker[] {
    return [...this.#parts.workers.values()].filter((worker) => !worker.draining && !worker.expelled);
  }

  /** Workers that the job should use: stragglers only where others are too few. */
  get available(): AttachedWorker[] {
    const { staying } = this;
    const quick = staying.filter((worker) => !worker.straggler);
    const places = this.#places;
    if (quick.length === staying.length || quick.length >= places) return quick;
    const kept = new Set(staying.filter((worker) => worker.straggler).slice(0, places - quick.length));
    return staying.filter((worker) => !worker.straggler || kept.has(worker));
  }

  get #places(): number {
    const { workers, batch } = this.#parts.spec;
    return Math.min(workers.max, batch.shards);
  }

  /** The next generation starts an attempt: training was interrupted. */
  restored(): void {
    this.#attemptStarted = false;
  }

  /** Forms a generation of the workers that the ledger asks for once all preparations are over. */
  async form(workerIds: readonly string[]): Promise<void> {
    const { jobId, book, ledger, dispatcher, logger, workers } = this.#parts;
    const { failures } = ledger.state;
    if (failures > 0) {
      // A failure is often a peer that is about to be found lost; its heartbeats decide.
      await sleep(FAILURE_PAUSE_MS * failures);
      if (!workerIds.every((workerId) => workers.has(workerId))) return;
    }
    if (!this.#attemptStarted) {
      this.#attemptStarted = true;
      const attempt = book.get(jobId).record.attempt + 1;
      await book.setPhase(jobId, "RUNNING", "", { attempt, dataFingerprint: this.#cut.feed.fingerprint });
    } else {
      await book.setPhase(jobId, "RUNNING", "");
    }
    // A member that joins at a step drops its snapshots of earlier ones.
    await this.#cut.keeper.settle(ledger.state.step);
    await faultPoint("coordinator.forming", ledger.state.step);
    const decision = this.#decide();
    if (decision.type !== "form") return;
    ledger.apply({ type: "generationFormed", workerIds: decision.workerIds });
    const { generation, step, members } = ledger.state;
    const { transport, reason } = this.#chooseTransport();
    this.#transport = transport;
    logger.info({ event: "generationFormed", generation, step, members, transport, reason }, "a generation is formed");
    const said = members.length === 1 ? "" : `${transport}: ${reason}`;
    book.setLive(jobId, { workers: members.length, members: memberStatuses(ledger.state, workers), transport: said });
    dispatcher.join(ledger.state, transport);
  }

  /** A member could not do what it was asked to: the next generation may do without the present transport. */
  memberFailed(code: string): void {
    if (this.#transport !== undefined && TRANSPORT_FAILURES.includes(code)) this.#failedTransports.add(this.#transport);
  }

  #chooseTransport(): TransportChoice {
    const { ledger, workers, spec } = this.#parts;
    const reach = ledger.state.members.flatMap(({ workerId }): Reach[] => {
      const hello = workers.get(workerId)?.hello;
      if (!hello) return [];
      const { hostId, ncclVersion, gpu } = hello;
      const kind = kindOn({ engines: hello.engines, gpu: gpu?.name }, spec.train.engine);
      return [{ engine: kind?.engine, hostId, ncclVersion, gpuUuid: gpu?.uuid ?? "" }];
    });
    return chooseTransport(spec, reach, this.#failedTransports);
  }

  /** Releases workers that are not used any more (draining, expelled, too slow) and no members, after saving what only they hold. */
  async letLeaversGo(): Promise<void> {
    const { ledger, workers } = this.#parts;
    const { phase, members } = ledger.state;
    if (phase !== "none" && phase !== "ready") return;
    const used = new Set(this.available);
    const usedIds = new Set([...used].map(({ workerId }) => workerId));
    const memberIds = new Set(members.map(({ workerId }) => workerId));
    const isFull = members.length === this.#places && members.every(({ workerId }) => usedIds.has(workerId));
    const leavers = [...workers.values()].filter((worker) => !memberIds.has(worker.workerId) && (isFull || !used.has(worker)));
    if (leavers.length === 0) return;
    const isHeldByOthers = isHeldBy(ledger.state, (workerId) => usedIds.has(workerId));
    if (phase === "none" && !isHeldByOthers) await this.#cut.makeDurable();
    for (const worker of leavers) this.#release(worker);
  }

  /** The round is void; these members are not used again before they attach anew, since the others outvoted them. */
  expel(workers: readonly MemberDigest[], weightsDigest: string): void {
    const { ledger, logger } = this.#parts;
    const { step, generation } = ledger.state;
    for (const { workerId, weightsDigest: theirs } of workers) {
      const worker = this.#parts.workers.get(workerId);
      if (worker) worker.expelled = true;
      const device = worker?.hello.device;
      logger.error(
        { event: "workerExpelled", workerId, device, step, generation, weightsDigest: theirs, majorityDigest: weightsDigest },
        "a worker's weights differ from those of the majority; it is not used until it attaches again",
      );
    }
    ledger.apply({ type: "membersExpelled", workers, weightsDigest });
  }

  releaseAll(): void {
    const { ledger, workers } = this.#parts;
    if (ledger.state.phase !== "none") ledger.apply({ type: "dissolved" });
    for (const worker of [...workers.values()]) this.#release(worker);
  }

  #release(worker: AttachedWorker): void {
    const { jobId, workers, ledger, release } = this.#parts;
    worker.send({ case: "release", value: { jobId } });
    worker.jobId = undefined;
    workers.delete(worker.workerId);
    ledger.apply({ type: "workerGone", workerId: worker.workerId });
    release(worker);
  }
}
