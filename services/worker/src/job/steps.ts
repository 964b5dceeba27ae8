import { SegueError, type JobSpec } from "@segue/core";
import { faultPoint } from "@segue/runtime";
import type { AdamWStep } from "@segue/engine";
import type { ComputeCalls } from "../compute/calls.js";
import type { ComputeThread } from "../compute/compute-thread.js";
import type { Exchange, PartsToAdd } from "./exchange.js";
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
  readonly exchange: Exchange;
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
    const { segments, membership, onStep } = this.#options;
    onStep(step);
    const work = segments.get(step);
    if (!work) {
      const failed = Promise.reject<never>(segmentsMissing(step));
      return { queued: failed, outcome: failed };
    }
    if (membership.peers.length === 0) return { queued: Promise.resolve(), outcome: this.#soleStep(step, work) };
    const queued = this.#sharedStep(step, work);
    return { queued, outcome: queued.then(({ outcome }) => outcome) };
  }

  async #soleStep(step: number, work: StepSegments): Promise<StepOutcome> {
    const { compute } = this.#options;
    const adamw = this.#adamw(step, work);
    const { lossSums, gradientNorm, computeMs } = await compute.call("wholeStep", { ...this.#gradientOf(step, 0, work), adamw });
    return { step, shardLossSums: [...lossSums], gradientNorm, learningRate: adamw.learningRate, computeMs, exchangeMs: 0 };
  }

  /** A step with peers: their nodes come while own ones are still computed. */
  async #sharedStep(step: number, work: StepSegments): Promise<{ outcome: Promise<StepOutcome> }> {
    const { exchange, membership, signal } = this.#options;
    await faultPoint("worker.stepBegins", step);
    exchange.begin(step);
    const computed: Computed[] = [];
    for (const index of membership.self.nodes.keys()) {
      const computing = this.#options.compute.call("gradient", this.#gradientOf(step, index, work));
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
    const outcome = this.#apply(step, work, Promise.resolve(computed), parts, performance.now() - startedMs);
    outcome.catch(() => undefined);
    return { outcome };
  }

  #gradientOf(step: number, index: number, work: StepSegments): ComputeCalls["gradient"]["request"] {
    const { epoch, exchange, membership, spec } = this.#options;
    const node = membership.self.nodes[index];
    if (!node) throw new RangeError(`this member has no node ${index}`);
    const batches = work.batches.filter(({ shard }) => shard >= node.lo && shard < node.hi);
    return { epoch, node, batches, ...stepRules(spec, step), into: exchange.node(step, index) };
  }

  #adamw(step: number, { totalWeight, learningRate }: StepSegments): AdamWStep {
    return { optimizer: this.#options.spec.optimizer, learningRate, step: step + 1, totalWeight };
  }

  async #apply(
    step: number,
    work: StepSegments,
    computed: Promise<readonly Computed[]>,
    parts: PartsToAdd | undefined,
    exchangeMs: number,
  ): Promise<StepOutcome> {
    const { compute, epoch, exchange } = this.#options;
    const adamw = this.#adamw(step, work);
    const applied = compute.call("apply", { epoch, gradientSum: exchange.total(step), parts, adamw });
    const [nodes, { gradientNorm, computeMs }] = await Promise.all([computed, applied]);
    return {
      step,
      shardLossSums: nodes.flatMap(({ lossSums }) => lossSums),
      gradientNorm,
      learningRate: adamw.learningRate,
      computeMs: nodes.reduce((sum, node) => sum + node.computeMs, computeMs),
      exchangeMs,
    };
  }
}

export function segmentsMissing(step: number): SegueError {
  return new SegueError("SEGMENTS_MISSING", `no segments came for step ${step}`, { status: "FAILED_PRECONDITION" });
}
