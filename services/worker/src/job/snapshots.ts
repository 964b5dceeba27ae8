import type { TensorRegistry } from "@segue/protocol";
import type { PagedFloats } from "@segue/core";
import { bytesOf, sharedFloats, sharedPages } from "../compute/shared.js";
import type { ModelVectors, MomentSlice, ShardStates } from "../compute/calls.js";
import type { PullCounter } from "../tensors/pull-counter.js";
import type { Slice } from "./membership.js";
import { refs } from "./refs.js";

/** Weights, optimizer and lane states at one step, in shared memory. */
export interface Snapshot {
  readonly step: number;
  readonly model: ModelVectors;
  /** Lane states of the shards that are or were placed here at this step. */
  readonly states: ReadonlyMap<number, Float32Array>;
  /** Under sync.optimizer sharded; beside the own slice copies of others'. */
  readonly moments?: readonly MomentSlice[] | undefined;
  /** Of the weights, hex, as whoever asked for the step knows them. */
  readonly digest: string;
}

export interface SnapshotSizes {
  readonly jobId: string;
  readonly parameters: number;
  readonly vectors: number;
  readonly lanesPerShard: number;
  readonly laneStateFloats: number;
  /** Of a page of a vector; smaller in tests. @default PAGE_FLOATS */
  readonly pageFloats?: number | undefined;
}

/** A vector of the model or the states of a shard. */
type Buffer = PagedFloats | Float32Array;

interface Retired {
  /** Empty: it was never published. */
  readonly ref: string;
  readonly buffer: Buffer;
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

  modelBuffer(): ModelVectors {
    const { vectors, parameters } = this.#sizes;
    return Array.from({ length: vectors }, () => this.#vectorBuffer(parameters));
  }

  momentsBuffer({ begin, end }: Slice): MomentSlice {
    return { begin, end, first: this.#vectorBuffer(end - begin), second: this.#vectorBuffer(end - begin) };
  }

  #vectorBuffer(length: number): PagedFloats {
    const isVector = (buffer: Buffer): buffer is PagedFloats => "pages" in buffer && buffer.length === length;
    return this.#retiredBuffer(isVector) ?? sharedPages(length, this.#sizes.pageFloats);
  }

  statesBuffer(): Float32Array {
    const isStates = (buffer: Buffer): buffer is Float32Array => !("pages" in buffer);
    return this.#retiredBuffer(isStates) ?? sharedFloats(this.#sizes.lanesPerShard * this.#sizes.laneStateFloats);
  }

  /** Keeps and publishes a snapshot; from here on its arrays must not change. Replaces one of the same step. */
  add(snapshot: Snapshot): void {
    const { jobId, parameters, vectors, lanesPerShard, laneStateFloats } = this.#sizes;
    const { step, model, states, moments = [] } = snapshot;
    const replaced = this.#snapshots.get(step);
    if (replaced) this.#drop(replaced, snapshot);
    this.#snapshots.set(step, snapshot);
    this.#registry.publish(refs.model(jobId, step), {
      dtype: "f32",
      shape: [vectors, parameters],
      pages: model.flatMap(({ pages }) => pages.map(bytesOf)),
    });
    for (const slice of moments) this.#publish(step, slice);
    for (const [shard, values] of states) {
      const shape = [lanesPerShard, laneStateFloats];
      this.#registry.publish(refs.states(jobId, step, shard), { dtype: "f32", shape, data: bytesOf(values) });
    }
  }

  /** Takes back buffers that were never published, as those of a round that was withdrawn while it was copied. */
  giveBack(buffers: Pick<Snapshot, "model" | "states" | "moments">): void {
    for (const buffer of [...buffers.model, ...buffers.states.values(), ...momentVectors(buffers)])
      this.#retired.push({ ref: "", buffer });
  }

  /** Adds moments to a snapshot that is kept. */
  addMoments(step: number, slice: MomentSlice): void {
    const snapshot = this.#snapshots.get(step);
    if (!snapshot) return;
    this.#snapshots.set(step, { ...snapshot, moments: [...(snapshot.moments ?? []), slice] });
    this.#publish(step, slice);
  }

  /** Slices have other sizes from here on: memory of the old ones is not used again. */
  forgetSlices(): void {
    this.#retired = this.#retired.filter(({ buffer }) => !("pages" in buffer) || buffer.length === this.#sizes.parameters);
  }

  #publish(step: number, { begin, end, first, second }: MomentSlice): void {
    // Nobody asks for nothing.
    if (end === begin) return;
    this.#registry.publish(refs.moments(this.#sizes.jobId, step, { begin, end }), {
      dtype: "f32",
      shape: [2, end - begin],
      pages: [...first.pages, ...second.pages].map(bytesOf),
    });
  }

  /** Drops the snapshots whose step fails the test. */
  retain(keep: (step: number) => boolean): void {
    for (const snapshot of [...this.#snapshots.values()]) if (!keep(snapshot.step)) this.#drop(snapshot);
  }

  #drop(snapshot: Snapshot, successor?: Snapshot): void {
    const { jobId } = this.#sizes;
    const { step } = snapshot;
    const kept = new Set<Buffer>(successor ? [...successor.model, ...successor.states.values(), ...momentVectors(successor)] : []);
    const dropped: Retired[] = [
      ...(snapshot.moments ?? []).flatMap((slice) =>
        [slice.first, slice.second].map((buffer) => ({ ref: refs.moments(jobId, step, slice), buffer })),
      ),
      ...snapshot.model.map((buffer) => ({ ref: refs.model(jobId, step), buffer })),
      ...Array.from(snapshot.states, ([shard, buffer]) => ({ ref: refs.states(jobId, step, shard), buffer })),
    ];
    this.#retired.push(...dropped.filter(({ buffer }) => !kept.has(buffer)));
    this.#registry.removePrefix(refs.snapshot(jobId, step));
    this.#snapshots.delete(step);
  }

  /** One that nobody pulls any more. */
  #retiredBuffer<Kind extends Buffer>(isKind: (buffer: Buffer) => buffer is Kind): Kind | undefined {
    const free = this.#retired.findIndex(({ ref, buffer }) => isKind(buffer) && !this.#pulls.underWay(ref));
    const [taken] = free < 0 ? [] : this.#retired.splice(free, 1);
    return taken && isKind(taken.buffer) ? taken.buffer : undefined;
  }
}

function momentVectors({ moments = [] }: Pick<Snapshot, "moments">): PagedFloats[] {
  return moments.flatMap(({ first, second }) => [first, second]);
}

export function weightsOf([weights]: ModelVectors): PagedFloats {
  return weights ?? { length: 0, pages: [] };
}

/** Lane states as the compute thread takes them. */
export function shardStates(states: ReadonlyMap<number, Float32Array>): ShardStates[] {
  return Array.from(states, ([shard, values]) => ({ shard, states: values }));
}
