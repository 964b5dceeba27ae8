import { SegueError } from "@segue/core";
import type { Join } from "@segue/protocol";
import { faultPoint } from "@segue/runtime";
import type { ModelVectors } from "../compute/calls.js";
import type { ComputeThread } from "../compute/compute-thread.js";
import type { Peers } from "../tensors/peers.js";
import { digestLike } from "./digest.js";
import type { Membership } from "./membership.js";
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
  readonly signal: AbortSignal;
}

/**
 * Brings the engine to the step of a Join: weights and optimizer from the own snapshot of that step, else from where the Join says, else
 * (step 0) from the seed; lane states likewise, else zero. Afterwards that step is the one restore point, published for others.
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
  const digest = own?.digest ?? (await digestLike(weightsDigest, weightsOf(model), signal));
  signal.throwIfAborted();
  if (weightsDigest !== "" && digest !== weightsDigest) {
    const message = `the weights of step ${step} have digest ${digest}, not ${weightsDigest}`;
    throw new SegueError("DIGEST_MISMATCH", message, { status: "DATA_LOSS" });
  }
  await compute.call("load", { model, states: shardStates(states) });
  signal.throwIfAborted();
  // States of shards that moved away stay: whoever got them may be told to pull them here.
  const snapshot: Snapshot = { step, model, states: new Map([...(own?.states ?? []), ...states]), digest };
  snapshots.add(snapshot);
  snapshots.retain((kept) => kept === step);
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
