import { setTimeout as sleep } from "node:timers/promises";
import type { Decision } from "@segue/core";
import { faultPoint } from "@segue/runtime";
import type { AttachedWorker } from "../workers/attached-worker.js";
import type { CommittedCut } from "./committed-cut.js";
import type { RunnerParts } from "./runner-parts.js";

const FAILURE_PAUSE_MS = 250;

/** Who works on one job: forms generations, lets leavers go, releases workers. */
export class Membership {
  readonly #parts: RunnerParts;
  readonly #cut: CommittedCut;
  readonly #decide: () => Decision;
  #attemptStarted = false;

  /** @param decide what the ledger asks for now */
  constructor(parts: RunnerParts, cut: CommittedCut, decide: () => Decision) {
    this.#parts = parts;
    this.#cut = cut;
    this.#decide = decide;
  }

  /** Workers that the job may use: claimed and not leaving. */
  get available(): AttachedWorker[] {
    return [...this.#parts.workers.values()].filter((worker) => !worker.draining);
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
      await book.setPhase(jobId, "RUNNING", "", { attempt: book.get(jobId).record.attempt + 1 });
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
    logger.info({ event: "generationFormed", generation, step, members }, "a generation is formed");
    book.setLive(jobId, { workers: members.length });
    dispatcher.join(ledger.state);
  }

  /** Releases draining workers that are no members (any more), after saving what only they hold. */
  async letLeaversGo(): Promise<void> {
    const { ledger, workers } = this.#parts;
    const { phase, holders, members } = ledger.state;
    const leavers = [...workers.values()].filter(({ draining, workerId }) => {
      return draining && !members.some((member) => member.workerId === workerId);
    });
    if (leavers.length === 0 || (phase !== "none" && phase !== "ready")) return;
    const isHeldByOthers = holders.some((workerId) => workers.get(workerId)?.draining === false);
    if (phase === "none" && !isHeldByOthers) await this.#cut.makeDurable();
    for (const worker of leavers) this.#release(worker);
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
