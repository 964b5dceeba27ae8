import { SegueError, stretches } from "@segue/core";
import type { Join } from "@segue/protocol";
import { faultPoint } from "@segue/runtime";
import type { ModelVectors, MomentSlice } from "../compute/calls.js";
import type { ComputeThread } from "../compute/compute-thread.js";
import type { Peers } from "../tensors/peers.js";
import { digestLike } from "./digest.js";
import type { Membership, MomentPlan, Slice } from "./membership.js";
import { fillMoments } from "./moments.js";
import { blaming } from "./peer-failure.js";
import { refs } from "./refs.js";
import { shardStates, weightsOf, type Snapshot, type Snapshots } from "./snapshots.js";

/** Snapshots are there before anybody is told of them. */
const PATIENCE_MS = 10_000;

export interface SyncOptions {
  readonly join: Join;
  readonly seed: number;
  readonly membership: Membership;
  readonly compute: ComputeThread;
  readonly snapshots: Snapshots;
  readonly peers: Peers;
  /** Under sync.optimizer sharded. */
  readonly moments?: MomentPlan | undefined;
  readonly signal: AbortSignal;
}

/**
 * Brings the engine to the step of a Join: weights and optimizer from the own snapshot of that step, else from where the Join says, else
 * (step 0) from the seed; lane states likewise, else zero; likewise the moments of the own slice and a copy of the next member's, where
 * each member steps a slice. Afterwards that step is the one restore point, published for others.
 * @throws SegueError SNAPSHOT_MISSING, DIGEST_MISMATCH, or the engine's; PeerFailure
 */
export async function syncToStep(options: SyncOptions): Promise<void> {
  const { join, membership, compute, snapshots, signal } = options;
  const { step, weightsDigest } = join;
  await faultPoint("worker.joining", step);
  // What lies ahead was never committed.
  snapshots.retain((held) => held <= step);
  const held = snapshots.at(step);
  const own = held && (weightsDigest === "" || weightsDigest === held.digest) ? held : undefined;
  const model = own?.model ?? (await fetchModel(options));
  const states = new Map<number, Float32Array>();
  await Promise.all(
    membership.self.shards.map(async (shard) => {
      const values = own?.states.get(shard) ?? (await fetchStates(options, shard));
      states.set(shard, values);
    }),
  );
  const plan = options.moments;
  const slice = plan && (await fetchMoments(options, plan.own, own));
  const copy = plan?.next && (await fetchMoments(options, plan.next.slice, own));
  const digest = own?.digest ?? (await digestLike(weightsDigest, weightsOf(model), signal));
  signal.throwIfAborted();
  if (weightsDigest !== "" && digest !== weightsDigest) {
    const message = `the weights of step ${step} have digest ${digest}, not ${weightsDigest}`;
    throw new SegueError("DIGEST_MISMATCH", message, { status: "DATA_LOSS" });
  }
  await compute.call("load", { model, slice, states: shardStates(states) });
  signal.throwIfAborted();
  // States of shards that moved away stay: whoever got them may be told to pull them here. So do moments, until all members have theirs.
  const moments = plan && [...new Set([...(own?.moments ?? []), slice!, ...(copy ? [copy] : [])])];
  const snapshot: Snapshot = { step, model, states: new Map([...(own?.states ?? []), ...states]), moments, digest };
  snapshots.add(snapshot);
  snapshots.retain((kept) => kept === step);
  if (plan) snapshots.forgetSlices();
  await faultPoint("worker.joined", step);
}

async function fetchModel(options: SyncOptions): Promise<ModelVectors> {
  const { join, seed, compute, snapshots } = options;
  const model = snapshots.modelBuffer();
  if (join.weightsAddress !== "") await pullModel(options, model);
  else if (join.step === 0) await compute.call("initialise", { seed, model });
  else throw missing(`weights of step ${join.step}`);
  return model;
}

async function pullModel(options: SyncOptions, model: ModelVectors): Promise<void> {
  const { weightsAddress, jobId, step } = options.join;
  let begin = 0;
  for (const page of model.flatMap(({ pages }) => pages)) {
    await pull(options, weightsAddress, refs.model(jobId, step), page, begin);
    begin += page.length;
  }
}

/** Those of a slice, from the own snapshot as far as that has them. */
async function fetchMoments(options: SyncOptions, slice: Slice, own: Snapshot | undefined): Promise<MomentSlice> {
  const { join, snapshots } = options;
  const held = own?.moments ?? [];
  const same = held.find(({ begin, end }) => begin === slice.begin && end === slice.end);
  if (same) return same;
  const into = snapshots.momentsBuffer(slice);
  const sources = join.moments.map(({ begin, end, address }) => ({ begin: Number(begin), end: Number(end), address }));
  const isFilled = await fillMoments(into, held, sources, (source, floats, begin) =>
    pull(options, source.address, refs.moments(join.jobId, join.step, source), floats, begin),
  );
  if (isFilled) return into;
  if (join.step > 0) throw missing(`moments of floats ${slice.begin} to ${slice.end} at step ${join.step}`);
  for (const { floats } of [into.first, into.second].flatMap((vector) => [...stretches(vector)])) floats.fill(0);
  return into;
}

async function fetchStates(options: SyncOptions, shard: number): Promise<Float32Array> {
  const { join, snapshots } = options;
  const states = snapshots.statesBuffer();
  if (join.statesAddress !== "") await pull(options, join.statesAddress, refs.states(join.jobId, join.step, shard), states);
  else if (join.step === 0) states.fill(0);
  else throw missing(`lane states of shard ${shard} at step ${join.step}`);
  return states;
}

function pull(options: SyncOptions, address: string, ref: string, into: Float32Array, begin = 0): Promise<void> {
  const { membership, peers, signal } = options;
  // The coordinator is nobody's peer: its failures carry no worker id.
  const holder = membership.peers.find((peer) => peer.address === address) ?? { workerId: "" };
  return blaming(holder, peers.pull({ address, ref, into, begin, patienceMs: PATIENCE_MS, signal }));
}

function missing(what: string): SegueError {
  return new SegueError("SNAPSHOT_MISSING", `neither held here nor to be had elsewhere: ${what}`, {
    status: "FAILED_PRECONDITION",
  });
}
