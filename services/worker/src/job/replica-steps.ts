import { shardsPerPlacement } from "@segue/core";
import { faultPoint } from "@segue/runtime";
import type { NodeSlice } from "../compute/join-parts.js";
import { sharedFloats } from "../compute/shared.js";
import { stepRules, weightOf } from "./segments.js";
import { segmentsMissing, type RoundRunner, type StepOutcome, type StepRunnerOptions } from "./steps.js";

/** Inner steps the compute thread may have waiting besides the one it computes. */
const STEPS_AHEAD = 2;

export interface ReplicaStepsOptions extends StepRunnerOptions {
  readonly parameters: number;
}

/**
 * The rounds of `sync.mode: diloco` (docs/design/sync.md). Here `membership` and `exchange` are over replicas, not shards, and the exchange
 * counts outer steps; without one the engine brings replicas together by itself. A member that holds several replicas trains them one after the other from the same start, so the weights do not
 * depend on who holds how many.
 */
export class ReplicaSteps implements RoundRunner {
  readonly #options: ReplicaStepsOptions;
  readonly #shardsPerReplica: number;
  /** What the replicas of one node give, f32 [3, P] each. */
  readonly #leaves: Float32Array[] = [];

  constructor(options: ReplicaStepsOptions) {
    this.#options = options;
    this.#shardsPerReplica = shardsPerPlacement(options.spec);
  }

  async run(firstStep: number, steps: number): Promise<StepOutcome[]> {
    const { innerSteps } = this.#options.spec.sync;
    const outcomes: StepOutcome[] = [];
    // Only the last block of the training may be shorter.
    for (let step = firstStep; step < firstStep + steps; step += innerSteps) {
      outcomes.push(...(await this.#block(step, Math.min(step + innerSteps, firstStep + steps))));
    }
    return outcomes;
  }

  beginEarly(): void {
    // A block may turn out to be the last one and shorter; and it is long, so that the pause before it weighs little.
  }

  /** Inner steps from `firstStep` to before `endStep` on every replica, then the outer step. */
  async #block(firstStep: number, endStep: number): Promise<StepOutcome[]> {
    const { spec, membership, compute, exchange, epoch, signal } = this.#options;
    const { replicas, innerSteps, outerLearningRate, outerMomentum } = spec.sync;
    const block = firstStep / innerSteps;
    await faultPoint("worker.stepBegins", firstStep);
    exchange?.begin(block);
    const ofReplica: StepOutcome[][] = [];
    for (const [index, node] of membership.self.nodes.entries()) {
      const isLeaf = node.hi - node.lo === 1;
      const parts: NodeSlice[] = [];
      for (let replica = node.lo; replica < node.hi; replica++) {
        const slice = exchange && (isLeaf ? exchange.node(block, index) : this.#leaf(replica - node.lo));
        ofReplica.push(await this.#replica(replica, firstStep, endStep, ofReplica.length === 0, slice));
        if (slice) parts.push({ node: { lo: replica, hi: replica + 1 }, slice });
      }
      if (!exchange) continue;
      if (!isLeaf) await compute.call("join", { epoch, node, parts, into: exchange.node(block, index) });
      signal.throwIfAborted();
      await exchange.offer(block, index);
    }
    const startedMs = performance.now();
    await faultPoint("worker.nodesPublished", firstStep);
    const parts = await exchange?.gather(block);
    signal.throwIfAborted();
    const gatheredMs = performance.now() - startedMs;
    const outer = { replicas, learningRate: outerLearningRate, momentum: outerMomentum };
    // Peers wait for this call alone: nothing else of this member is before it or behind it.
    const { exchangeMs, receivedBytes } = await compute.call("outerStep", { epoch, sum: exchange?.total(block), parts, outer });
    const received = exchange?.counts ?? { pulls: 0, bytes: receivedBytes };
    return merged(ofReplica, { exchangeMs: exchange ? gatheredMs : exchangeMs, received });
  }

  /** Inner steps of one replica; `into`, f32 [3, P], becomes what the outer step needs of it, if that does not stay in the engine. */
  async #replica(
    replica: number,
    firstStep: number,
    endStep: number,
    isFirst: boolean,
    into: Float32Array | undefined,
  ): Promise<StepOutcome[]> {
    const { compute, epoch, onStep, signal } = this.#options;
    const begun = compute.call("replicaBegin", { epoch, isFirst });
    begun.catch(() => undefined);
    const outcomes: Promise<StepOutcome>[] = [];
    for (let step = firstStep; step < endStep; step++) {
      await outcomes.at(-STEPS_AHEAD);
      signal.throwIfAborted();
      onStep(step);
      const outcome = this.#innerStep(replica, step);
      outcome.catch(() => undefined);
      outcomes.push(outcome);
    }
    await begun;
    const finished = await Promise.all(outcomes);
    await compute.call("replicaEnd", { epoch, into });
    return finished;
  }

  async #innerStep(replica: number, step: number): Promise<StepOutcome> {
    const { compute, epoch, segments, spec } = this.#options;
    const { optimizer } = spec;
    const lo = replica * this.#shardsPerReplica;
    const work = segments.get(step);
    if (!work) throw segmentsMissing(step);
    const ofReplica = work.batches.filter(({ shard }) => shard >= lo && shard < lo + this.#shardsPerReplica);
    const batches = ofReplica.sort((a, b) => a.shard - b.shard);
    const { learningRate } = work;
    // Where all labels of a replica are masked, its gradient is 0 and so is its mean.
    const adamw = { optimizer, learningRate, step: step + 1, totalWeight: weightOf(batches) || 1 };
    const computed = await compute.call("wholeStep", { epoch, batches, ...stepRules(spec, step), adamw });
    const { lossSums, gradientNorm, computeMs } = computed;
    // What came from peers is told with the outer step.
    const received = { pulls: 0, bytes: 0 };
    return { step, shardLossSums: [...lossSums], gradientNorm, learningRate, computeMs, exchangeMs: 0, received };
  }

  #leaf(index: number): Float32Array {
    return (this.#leaves[index] ??= sharedFloats(3 * this.#options.parameters));
  }
}

/** One outcome a step: losses of all replicas in order, the gradient norm of the first, the exchange at the last step. */
function merged(
  ofReplica: readonly (readonly StepOutcome[])[],
  exchanged: Pick<StepOutcome, "exchangeMs" | "received">,
): StepOutcome[] {
  const [first = []] = ofReplica;
  return first.map((outcome, index) => {
    const all = ofReplica.flatMap((outcomes) => outcomes[index] ?? []);
    return {
      ...outcome,
      shardLossSums: all.flatMap(({ shardLossSums }) => shardLossSums),
      computeMs: all.reduce((sum, { computeMs }) => sum + computeMs, 0),
      ...(index === first.length - 1 && exchanged),
    };
  });
}
