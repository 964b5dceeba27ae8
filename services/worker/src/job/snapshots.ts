import type { TensorRegistry } from "@segue/protocol";
import { bytesOf, sharedFloats } from "../compute/shared.js";
import type { ShardStates } from "../compute/calls.js";
import type { PullCounter } from "../tensors/pull-counter.js";
import { refs } from "./refs.js";

/** Weights, optimizer and lane states at one step, in shared memory. */
export interface Snapshot {
  readonly step: number;
  /** Weights, first and second moments, under diloco the outer momentum; f32 [vectors, P]. */
  readonly model: Float32Array;
  /** Lane states of the shards that are or were placed here at this step. */
  readonly states: ReadonlyMap<number, Float32Array>;
  /** SHA-256 of the weights, hex. */
  readonly digest: string;
}

export interface SnapshotSizes {
  readonly jobId: string;
  readonly parameters: number;
  readonly vectors: number;
  readonly lanesPerShard: number;
  readonly laneStateFloats: number;
}

interface Retired {
  readonly ref: string;
  readonly buffer: Float32Array;
}

/**
 * The restore points of one job, published for peers and coordinator. Memory of a dropped snapshot is used again, but not while somebody
 * still pulls it.
 */
export class Snapshots {
  readonly #registry: TensorRegistry;
  readonly #pulls: PullCounter;
  readonly #sizes: SnapshotSizes;
  readonly #snapshots = new Map<number, Snapshot>();
  #retired: Retired[] = [];

  constructor(registry: TensorRegistry, pulls: PullCounter, sizes: SnapshotSizes) {
    this.#registry = registry;
    this.#pulls = pulls;
    this.#sizes = sizes;
  }

  at(step: number): Snapshot | undefined {
    return this.#snapshots.get(step);
  }

  modelBuffer(): Float32Array {
    return this.#buffer(this.#sizes.vectors * this.#sizes.parameters);
  }

  statesBuffer(): Float32Array {
    return this.#buffer(this.#sizes.lanesPerShard * this.#sizes.laneStateFloats);
  }

  /** Keeps and publishes a snapshot; from here on its arrays must not change. Replaces one of the same step. */
  add(snapshot: Snapshot): void {
    const { jobId, parameters, vectors, lanesPerShard, laneStateFloats } = this.#sizes;
    const { step, model, states } = snapshot;
    const replaced = this.#snapshots.get(step);
    if (replaced) this.#drop(replaced, snapshot);
    this.#snapshots.set(step, snapshot);
    this.#registry.publish(refs.model(jobId, step), { dtype: "f32", shape: [vectors, parameters], data: bytesOf(model) });
    for (const [shard, values] of states) {
      const shape = [lanesPerShard, laneStateFloats];
      this.#registry.publish(refs.states(jobId, step, shard), { dtype: "f32", shape, data: bytesOf(values) });
    }
  }

  /** Drops the snapshots whose step fails the test. */
  retain(keep: (step: number) => boolean): void {
    for (const snapshot of [...this.#snapshots.values()]) if (!keep(snapshot.step)) this.#drop(snapshot);
  }

  #drop(snapshot: Snapshot, successor?: Snapshot): void {
    const { jobId } = this.#sizes;
    const { step } = snapshot;
    const kept = new Set([successor?.model, ...(successor?.states.values() ?? [])]);
    const dropped: Retired[] = [
      { ref: refs.model(jobId, step), buffer: snapshot.model },
      ...Array.from(snapshot.states, ([shard, buffer]) => ({ ref: refs.states(jobId, step, shard), buffer })),
    ];
    this.#retired.push(...dropped.filter(({ buffer }) => !kept.has(buffer)));
    this.#registry.removePrefix(refs.snapshot(jobId, step));
    this.#snapshots.delete(step);
  }

  #buffer(floats: number): Float32Array {
    const free = this.#retired.findIndex(({ ref, buffer }) => buffer.length === floats && !this.#pulls.underWay(ref));
    if (free < 0) return sharedFloats(floats);
    return this.#retired.splice(free, 1)[0]?.buffer ?? sharedFloats(floats);
  }
}

/** Lane states as the compute thread takes them. */
export function shardStates(states: ReadonlyMap<number, Float32Array>): ShardStates[] {
  return Array.from(states, ([shard, values]) => ({ shard, states: values }));
}
