import { SegueError, type JobSpec } from "@segue/core";
import { faultPoint } from "@segue/runtime";
import type { AdamWStep } from "@segue/engine";
import type { ComputeCalls } from "../compute/calls.js";
import type { ComputeThread } from "../compute/compute-thread.js";
import type { Exchange, PartsToAdd, PullCounts } from "./exchange.js";
import type { Membership } from "./membership.js";
import { stepRules, type StepSegments } from "./segments.js";

/** What is reported of one step. */
export interface StepOutcome {
  readonly step: number;
  /** In the order of this member's shards. */
  readonly shardLossSums: number[];
  readonly gradientNorm: number;
  readonly learningRate: number;
  readonly computeMs: number;
  /** From the last gradient computed here to the last sum arrived. */
  readonly exchangeMs: number;
  /** What had come from peers by the end of the step, since the generation began. */
  readonly received: PullCounts;
}

/** Runs the rounds of one generation. */
export interface RoundRunner {
  /**
   * Runs `steps` steps from `firstStep` on.
   * @throws SegueError of the engine, SEGMENTS_MISSING, VOID after the fence was raised; PeerFailure
   */
  run(firstStep: number, steps: number): Promise<StepOutcome[]>;
  /**
   * Begins steps of a round that has not been asked for yet, from `firstStep` to before `endStep`, as far as their segments are here. It
   * will have at least these, so that only a change of membership can make them void, and then the engine is loaded anew. What fails shows
   * when the round is run.
   */
  beginEarly(firstStep: number, endStep: number): void;
}

export interface StepRunnerOptions {
  readonly spec: JobSpec;
  readonly membership: Membership;
  readonly compute: ComputeThread;
  /** Absent: there are no peers, or the engines bring their gradients together by themselves. */
  readonly exchange?: Exchange | undefined;
  readonly epoch: number;
  readonly segments: ReadonlyMap<number, StepSegments>;
  /** Aborts with the generation. */
  readonly signal: AbortSignal;
  readonly onStep: (step: number) => void;
}

/** Steps the compute thread may have at once: a device computes one, the next is begun behind it, and one more waits for its answer. */
const STEPS_AHEAD = 3;

/** A step under way. */
interface StartedStep {
  /** Settles when the step's last call is queued at the compute thread, behind which the next step's may be queued. */
  readonly queued: Promise<unknown>;
  readonly outcome: Promise<StepOutcome>;
}

interface Computed {
  readonly lossSums: readonly number[];
  readonly computeMs: number;
}

/** A step whose nodes are all here. */
interface GatheredStep {
  readonly step: number;
  readonly work: StepSegments;
  readonly exchange: Exchange;
  readonly computed: readonly Computed[];
  readonly parts: PartsToAdd | undefined;
  readonly exchangeMs: number;
}

/**
 * Runs the steps of one generation. The optimizer step of one step and the gradients of the next are queued at the compute thread
 * together, so that it does not wait for this thread.
 */
export class StepRunner implements RoundRunner {
  readonly #options: StepRunnerOptions;
  /** Steps begun and not yet part of a finished run. */
  readonly #started = new Map<number, StartedStep>();
  /** Steps are begun in order, those of a round behind those begun early. */
  #beginning: Promise<void> = Promise.resolve();

  constructor(options: StepRunnerOptions) {
    this.#options = options;
  }

  async run(firstStep: number, steps: number): Promise<StepOutcome[]> {
    const endStep = firstStep + steps;
    await this.#begin(firstStep, endStep);
    const outcomes: Promise<StepOutcome>[] = [];
    for (let step = firstStep; step < endStep; step++) {
      const started = this.#started.get(step);
      if (started) outcomes.push(started.outcome);
      this.#started.delete(step);
    }
    return Promise.all(outcomes);
  }

  beginEarly(firstStep: number, endStep: number): void {
    let end = firstStep;
    while (end < endStep && this.#options.segments.has(end)) end++;
    this.#begin(firstStep, end).catch(() => undefined);
  }

  #begin(firstStep: number, endStep: number): Promise<void> {
    return (this.#beginning = this.#beginning.then(() => this.#beginAll(firstStep, endStep)));
  }

  async #beginAll(firstStep: number, endStep: number): Promise<void> {
    for (let step = firstStep; step < endStep; step++) {
      await this.#started.get(step - STEPS_AHEAD)?.outcome;
      await this.#step(step).queued;
    }
  }

  #step(step: number): StartedStep {
    let started = this.#started.get(step);
    if (!started) {
      this.#started.set(step, (started = this.#start(step)));
      // Both are awaited later; until then a failure must not count as unhandled.
      started.queued.catch(() => undefined);
      started.outcome.catch(() => undefined);
    }
    return started;
  }

  #start(step: number): StartedStep {
    const { segments, exchange, onStep } = this.#options;
    onStep(step);
    const work = segments.get(step);
    if (!work) {
      const failed = Promise.reject<never>(segmentsMissing(step));
      return { queued: failed, outcome: failed };
    }
    const queued = exchange ? this.#sharedStep(step, work, exchange) : this.#wholeStep(step, work);
    return { queued, outcome: queued.then(({ outcome }) => outcome) };
  }

  /** A step that the compute thread does by itself, without peers or with its engine's exchange. */
  async #wholeStep(step: number, work: StepSegments): Promise<{ outcome: Promise<StepOutcome> }> {
    const { compute, epoch, spec } = this.#options;
    await faultPoint("worker.stepBegins", step);
    const adamw = this.#adamw(step, work);
    const { learningRate } = adamw;
    const batches = [...work.batches].sort((a, b) => a.shard - b.shard);
    const computing = compute.call("wholeStep", { epoch, batches, ...stepRules(spec, step), adamw });
    const outcome = computing.then(({ lossSums, receivedBytes, gradientNorm, computeMs, exchangeMs }): StepOutcome => {
      const received = { pulls: 0, bytes: receivedBytes };
      return { step, shardLossSums: [...lossSums], gradientNorm, learningRate, computeMs, exchangeMs, received };
    });
    outcome.catch(() => undefined);
    await faultPoint("worker.computing", step);
    return { outcome };
  }

  /** A step with peers: their nodes come while own ones are still computed. */
  async #sharedStep(step: number, work: StepSegments, exchange: Exchange): Promise<{ outcome: Promise<StepOutcome> }> {
    const { membership, signal } = this.#options;
    await faultPoint("worker.stepBegins", step);
    exchange.begin(step);
    const computed: Computed[] = [];
    for (const index of membership.self.nodes.keys()) {
      const computing = this.#options.compute.call("gradient", this.#gradientOf(step, index, work, exchange));
      await faultPoint("worker.computing", step);
      computed.push(await computing);
      signal.throwIfAborted();
      await faultPoint("worker.gradientComputed", step);
      await exchange.offer(step, index);
    }
    const startedMs = performance.now();
    await faultPoint("worker.nodesPublished", step);
    const parts = await exchange.gather(step);
    signal.throwIfAborted();
    const exchangeMs = performance.now() - startedMs;
    const outcome = this.#apply({ step, work, exchange, computed, parts, exchangeMs });
    outcome.catch(() => undefined);
    return { outcome };
  }

  #gradientOf(step: number, index: number, work: StepSegments, exchange: Exchange): ComputeCalls["gradient"]["request"] {
    const { epoch, membership, spec } = this.#options;
    const node = membership.self.nodes[index];
    if (!node) throw new RangeError(`this member has no node ${index}`);
    const batches = work.batches.filter(({ shard }) => shard >= node.lo && shard < node.hi);
    return { epoch, node, batches, ...stepRules(spec, step), into: exchange.node(step, index) };
  }

  #adamw(step: number, { totalWeight, learningRate }: StepSegments): AdamWStep {
    return { optimizer: this.#options.spec.optimizer, learningRate, step: step + 1, totalWeight };
  }

  async #apply({ step, work, exchange, computed, parts, exchangeMs }: GatheredStep): Promise<StepOutcome> {
    const { compute, epoch } = this.#options;
    const adamw = this.#adamw(step, work);
    const { gradientNorm, computeMs } = await compute.call("apply", { epoch, gradientSum: exchange.total(step), parts, adamw });
    return {
      step,
      shardLossSums: computed.flatMap(({ lossSums }) => lossSums),
      gradientNorm,
      learningRate: adamw.learningRate,
      computeMs: computed.reduce((sum, node) => sum + node.computeMs, computeMs),
      exchangeMs,
      received: exchange.counts,
    };
  }
}

export function segmentsMissing(step: number): SegueError {
  return new SegueError("SEGMENTS_MISSING", `no segments came for step ${step}`, { status: "FAILED_PRECONDITION" });
}
