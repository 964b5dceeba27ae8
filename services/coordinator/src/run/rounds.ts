import { SegueError, stageEnd, tokensBefore, tokensPerStep, type LedgerMember, type LedgerRound } from "@segue/core";
import { faultPoint } from "@segue/runtime";
import type { CommittedCut } from "./committed-cut.js";
import { memberStatuses } from "./member-status.js";
import { pullLaneStates, STATES_PULL_FAILED } from "./lane-states.js";
import { roundSteps, roundWorkMs, smoothedStepMs } from "./round-steps.js";
import type { RunnerParts } from "./runner-parts.js";
import { roundMetrics } from "./step-metrics.js";
import { isStraggler, updatedPaces, type WorkerPace } from "./stragglers.js";

export interface RoundsOptions {
  readonly parts: RunnerParts;
  readonly cut: CommittedCut;
  /** Whether a round may start now; asked after everything that takes time. */
  readonly mayStart: () => boolean;
  /** A member did not do its part. */
  readonly onFailed: (generation: number, workerId: string, error: SegueError) => void;
  /** The job cannot go on. */
  readonly onFatal: (error: Error) => void;
}

/** Starts and commits the rounds of one job. */
export class Rounds {
  readonly #options: RoundsOptions;
  #stepMs: number | undefined;
  #previousSteps = 0;
  /** What members were told of the round after the one in flight. */
  #promised: { readonly generation: number; readonly firstStep: number; readonly steps: number } | undefined;
  #paces: ReadonlyMap<string, WorkerPace> = new Map();
  #startedAtMs = 0;

  constructor(options: RoundsOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    const { parts, cut, mayStart, onFatal } = this.#options;
    const { spec, ledger, dispatcher } = parts;
    const { feed, keeper } = cut;
    const { generation, step, totalSteps } = ledger.state;
    const promised = this.#promised?.generation === generation && this.#promised.firstStep === step ? this.#promised.steps : 0;
    const wanted = Math.max(promised, this.#stepsFrom(step, this.#previousSteps));
    await dispatcher.sendSegments(ledger.state, cut, step + wanted);
    // Members drop the snapshot of a step when the round after it is known to be committed, which RunRound tells them.
    await keeper.settle(step);
    if (feed.endStep !== undefined && feed.endStep < totalSteps) ledger.apply({ type: "dataEnded", step: feed.endStep });
    await faultPoint("coordinator.roundBegins", step);
    if (ledger.state.generation !== generation || !mayStart()) return;
    const steps = Math.min(wanted, ledger.state.totalSteps - step);
    const endStep = step + steps;
    ledger.apply({ type: "roundStarted", steps });
    this.#startedAtMs = performance.now();
    this.#previousSteps = steps;
    // A stage of larger steps may have fewer of them in a round.
    const isStageEnd = endStep === stageEnd(spec.tbptt, step);
    const nextSteps = isStageEnd ? 0 : this.#stepsFrom(endStep, steps);
    this.#promised = { generation, firstStep: endStep, steps: nextSteps };
    dispatcher.runRound(ledger.state, keeper.isDue(endStep, ledger.state.totalSteps), nextSteps);
    await faultPoint("coordinator.roundStarted", step);
    dispatcher
      .sendSegments(ledger.state, cut, endStep + nextSteps)
      .catch((error: unknown) => onFatal(error instanceof Error ? error : new Error(String(error))));
  }

  /** Steps of a round that begins at `step`, as far as is known by now. */
  #stepsFrom(step: number, previousSteps: number): number {
    const { spec, ledger } = this.#options.parts;
    return roundSteps({
      step,
      totalSteps: ledger.state.totalSteps,
      targetMs: spec.rounds.targetMs,
      maxSteps: spec.rounds.maxSteps,
      multipleOf: spec.sync.mode === "diloco" ? spec.sync.innerSteps : 1,
      stageEnd: stageEnd(spec.tbptt, step),
      checkpointEverySteps: spec.checkpoints.everySteps,
      stepMs: this.#stepMs,
      previousSteps,
    });
  }

  /** Commits the reported round: losses, cursors, lane states and step move together. Does nothing when the round is voided meanwhile. */
  async commit(): Promise<void> {
    const { cut: committed, parts } = this.#options;
    const { book, metrics, ledger, spec, jobId, logger } = parts;
    const { feed } = committed;
    const { round, members, generation } = ledger.state;
    if (!round) return;
    const roundMs = performance.now() - this.#startedAtMs;
    const endStep = round.firstStep + round.steps;
    await faultPoint("coordinator.roundReported", endStep);
    const pullingSinceMs = performance.now();
    const states = await this.#pullStates(endStep);
    const statesMs = performance.now() - pullingSinceMs;
    await faultPoint("coordinator.statesPulled", endStep);
    const cut = await feed.get(endStep - 1);
    if (!states || !cut || ledger.state.generation !== generation || ledger.state.phase !== "reported") return;

    const weights = new Map<number, number>();
    for (let step = round.firstStep; step < endStep; step++) weights.set(step, (await feed.get(step))?.totalWeight ?? 0);
    const steps = roundMetrics(members, round, (step) => weights.get(step) ?? 0);
    const { loss = 0, learningRate = 0, gradientNorm = 0 } = steps.at(-1) ?? {};
    ledger.apply({ type: "roundCommitted" });
    this.#measurePaces(members, round);
    committed.commit(states, cut, loss);
    const growth = tokensPerStep(spec, endStep) / tokensPerStep(spec, round.firstStep);
    this.#stepMs = growth * smoothedStepMs(this.#stepMs, roundWorkMs(round), round.steps);
    const { documentsRead, documentsDroppedShort } = cut;
    const tokens = tokensBefore(spec, endStep) - tokensBefore(spec, round.firstStep);
    const tokensPerSecond = (1_000 * tokens) / (performance.now() - this.#startedAtMs);
    book.setLive(jobId, {
      step: endStep,
      loss,
      documentsRead,
      documentsDroppedShort,
      learningRate,
      gradientNorm,
      tokensPerSecond,
      members: memberStatuses(ledger.state, parts.workers),
    });
    metrics.steps(book.get(jobId), steps);
    logger.debug({ event: "roundCommitted", step: endStep, steps: round.steps, loss, roundMs, statesMs }, "a round is committed");
    committed.checkpointIfDue();
    await faultPoint("coordinator.roundCommitted", endStep);
  }

  /** Who is slow may be moved off at this round boundary. */
  #measurePaces(members: readonly LedgerMember[], round: LedgerRound): void {
    const { spec, workers, logger, wantsWorkers } = this.#options.parts;
    this.#paces = updatedPaces(this.#paces, members, round, spec.workers.stragglerFactor);
    let isNew = false;
    for (const [workerId, pace] of this.#paces) {
      const worker = workers.get(workerId);
      if (!worker) continue;
      const straggles = isStraggler(pace);
      const { shardMs, stepTimes } = pace;
      if (straggles && !worker.straggler) {
        isNew = true;
        logger.warn({ event: "straggler", workerId, shardMs }, "a worker is slower than the others");
      }
      worker.shardMs = shardMs;
      worker.stepTimes = stepTimes;
      worker.straggler = straggles;
    }
    if (isNew) wantsWorkers();
  }

  /** undefined when the round was voided meanwhile; a member that cannot deliver has failed. */
  async #pullStates(step: number): Promise<Uint8Array[] | undefined> {
    const { parts, onFailed } = this.#options;
    const { jobId, spec, ledger, workers } = parts;
    const signal = ledger.generationOver;
    const { generation, members } = ledger.state;
    const owners = members.flatMap((member) => {
      const worker = workers.get(member.workerId);
      return worker ? [{ ...member, worker }] : [];
    });
    if (owners.length < members.length) return undefined;
    try {
      return await pullLaneStates(jobId, spec, step, owners, signal);
    } catch (error) {
      if (signal.aborted) return undefined;
      if (!(error instanceof SegueError && error.code === STATES_PULL_FAILED)) throw error;
      onFailed(generation, error.violations?.[0]?.field ?? "", error);
      return undefined;
    }
  }
}
