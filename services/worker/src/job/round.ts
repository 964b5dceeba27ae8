import { learningRateAt, SegueError, type JobSpec } from "@segue/core";
import { faultPoint } from "@segue/runtime";
import type { ComputeThread } from "../compute/compute-thread.js";
import type { Exchange } from "./exchange.js";
import type { Membership } from "./membership.js";
import type { StepSegments } from "./segments.js";

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

export interface RoundOptions {
  readonly spec: JobSpec;
  readonly membership: Membership;
  readonly compute: ComputeThread;
  readonly exchange: Exchange;
  readonly epoch: number;
  readonly firstStep: number;
  readonly steps: number;
  readonly segments: ReadonlyMap<number, StepSegments>;
  readonly signal: AbortSignal;
  readonly onStep: (step: number) => void;
}

/** Steps the compute thread may have waiting besides the one it computes: enough to keep it busy. */
const STEPS_AHEAD = 2;

/** A step whose last call is queued at the compute thread. */
interface QueuedStep {
  readonly outcome: Promise<StepOutcome>;
}

interface Computed {
  readonly lossSums: readonly number[];
  readonly computeMs: number;
}

/**
 * Runs the steps of a round. The optimizer step of one step and the gradients of the next are queued at the compute thread together, so
 * that it does not wait for this thread.
 * @throws SegueError of the engine, SEGMENTS_MISSING, VOID after the fence was raised; PeerFailure
 */
export async function runSteps(options: RoundOptions): Promise<StepOutcome[]> {
  const { firstStep, steps, membership, segments } = options;
  const abort = new AbortController();
  const signal = AbortSignal.any([options.signal, abort.signal]);
  const outcomes: Promise<StepOutcome>[] = [];
  try {
    for (let step = firstStep; step < firstStep + steps; step++) {
      await outcomes.at(-STEPS_AHEAD);
      options.onStep(step);
      const work = segments.get(step);
      if (!work) throw new SegueError("SEGMENTS_MISSING", `no segments came for step ${step}`, { status: "FAILED_PRECONDITION" });
      const { outcome } =
        membership.peers.length === 0 ? soleStep(options, step, work) : await sharedStep(options, step, work, signal);
      // It is awaited later; until then a failure must not count as unhandled.
      outcome.catch(() => undefined);
      outcomes.push(outcome);
    }
    const results = await Promise.all(outcomes);
    await faultPoint("worker.snapshotBegins", firstStep + steps);
    return results;
  } finally {
    abort.abort();
  }
}

/** A step without peers. */
function soleStep(options: RoundOptions, step: number, work: StepSegments): QueuedStep {
  const computed = gradient(options, 0, work).then((node) => [node]);
  return queueApply(options, step, work, computed, 0);
}

/** A step with peers: nodes are pulled while others are still computed. */
async function sharedStep(options: RoundOptions, step: number, work: StepSegments, signal: AbortSignal): Promise<QueuedStep> {
  const { exchange, compute, epoch, membership } = options;
  exchange.begin(step);
  const gathered = exchange.pullNodes(step, signal);
  gathered.catch(() => undefined);
  const computed: Computed[] = [];
  for (const index of membership.self.nodes.keys()) {
    const computing = gradient(options, index, work);
    await faultPoint("worker.computing", step);
    computed.push(await computing);
    signal.throwIfAborted();
    await faultPoint("worker.gradientComputed", step);
    exchange.publishNode(step, index);
  }
  await faultPoint("worker.nodesPublished", step);
  const startedMs = performance.now();
  await gathered;
  await faultPoint("worker.nodesGathered", step);
  const { totalShards } = membership;
  await compute.call("join", { epoch, totalShards, parts: exchange.parts(), into: exchange.ownTotal(step) });
  signal.throwIfAborted();
  exchange.publishSum(step);
  await faultPoint("worker.sumPublished", step);
  await exchange.pullSums(step, signal);
  await faultPoint("worker.sumsGathered", step);
  return queueApply(options, step, work, Promise.resolve(computed), performance.now() - startedMs);
}

function gradient(
  { compute, epoch, exchange, membership, spec }: RoundOptions,
  index: number,
  work: StepSegments,
): Promise<Computed> {
  const node = membership.self.nodes[index];
  if (!node) throw new RangeError(`this member has no node ${index}`);
  const { carrySsm, carryConv } = spec.tbptt;
  const batches = work.batches.filter(({ shard }) => shard >= node.lo && shard < node.hi);
  return compute.call("gradient", { epoch, node, batches, carrySsm, carryConv, into: exchange.node(index) });
}

function queueApply(
  { compute, epoch, exchange, spec }: RoundOptions,
  step: number,
  work: StepSegments,
  computed: Promise<readonly Computed[]>,
  exchangeMs: number,
): QueuedStep {
  const { optimizer, schedule, train } = spec;
  const learningRate = learningRateAt(step, train.steps, optimizer, schedule);
  const adamw = { optimizer, learningRate, step: step + 1, totalWeight: work.totalWeight };
  const applied = compute.call("apply", { epoch, gradientSum: exchange.total(step), adamw });
  const outcome = Promise.all([computed, applied]).then(([nodes, { gradientNorm, computeMs }]): StepOutcome => ({
    step,
    shardLossSums: nodes.flatMap(({ lossSums }) => lossSums),
    gradientNorm,
    learningRate,
    computeMs: nodes.reduce((sum, node) => sum + node.computeMs, computeMs),
    exchangeMs,
  }));
  return { outcome };
}
