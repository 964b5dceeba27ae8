import { splitPoint, type ReductionNode } from "@segue/core";
import type { Device } from "../devices/device.js";
import type { DeviceExchange } from "../exchange/device-exchange.js";
import type { EngineReplicas, OuterSettings } from "../exchange/engine-replicas.js";

/** Flat vectors of an engine, [P] each. */
export interface TrainedVectors<F> {
  readonly parameters: F;
  readonly firstMoment: F;
  readonly secondMoment: F;
}

/** Changes of the weights, first and second moments: what is summed over replicas, [3, P]. */
const SUMMED = 3;

/** Where what became of a replica belongs, and the additions that are due once it is there: each `sum` += `addend`. */
interface Place<F> {
  readonly into: F;
  readonly additions: readonly { readonly addend: F; readonly sum: F }[];
}

/**
 * DiLoCo (docs/design/sync.md) on a device. A replica's sums go straight into the member's node of the exchange, or to where a right subtree
 * of it is added up.
 */
export class Replicas<F, I> implements EngineReplicas {
  readonly #device: Device<F, I>;
  readonly #trained: TrainedVectors<F>;
  readonly #exchange: DeviceExchange<F>;
  readonly #size: number;
  /** By own replica, in order. */
  readonly #places: readonly Place<F>[];
  readonly #memory: F;
  /** u, [P]. */
  readonly #velocity: F;
  /** What replicas start from: weights, and moments if there are several, [P] each. */
  readonly #start: readonly F[];
  #ended = 0;
  #closed = false;

  /** @throws SegueError DEVICE_OUT_OF_MEMORY */
  constructor(device: Device<F, I>, trained: TrainedVectors<F>, size: number, exchange: DeviceExchange<F>) {
    this.#device = device;
    this.#trained = trained;
    this.#size = size;
    this.#exchange = exchange;
    const { ownNodes, nodes } = exchange;
    const replicas = ownNodes.reduce((sum, { lo, hi }) => sum + hi - lo, 0);
    const kept = replicas > 1 ? SUMMED : 1;
    const levels = Math.max(0, ...ownNodes.map(levelsOf));
    this.#memory = device.floats((1 + kept + SUMMED * levels) * size);
    const vector = (index: number): F => this.#part(this.#memory, index);
    this.#velocity = vector(0);
    this.#start = Array.from({ length: kept }, (_, index) => vector(1 + index));
    const rightOfDepth = Array.from({ length: levels }, (_, depth) =>
      device.slice(this.#memory, (1 + kept + SUMMED * depth) * size, SUMMED * size),
    );
    this.#places = ownNodes.flatMap((node, index) =>
      Array.from({ length: node.hi - node.lo }, (_, replica) => placeOf(node, node.lo + replica, nodes[index]!, rightOfDepth)),
    );
  }

  readMomentum(into: Float32Array, offset: number): void {
    this.#device.download(this.#device.slice(this.#velocity, offset, into.length), into);
  }

  writeMomentum(from: Float32Array, offset: number): void {
    this.#device.upload(from, this.#device.slice(this.#velocity, offset, from.length));
  }

  begin(isFirst: boolean): void {
    if (isFirst) {
      this.#ended = 0;
      this.#exchange.begin();
    }
    const { parameters, firstMoment, secondMoment } = this.#trained;
    const now = [parameters, firstMoment, secondMoment];
    for (const [index, start] of this.#start.entries()) {
      if (isFirst) this.#device.copy(now[index]!, start);
      else this.#device.copy(start, now[index]!);
    }
  }

  end(): void {
    const { parameters, firstMoment, secondMoment } = this.#trained;
    const { into, additions } = this.#places[this.#ended++]!;
    this.#device.subtract(this.#start[0]!, parameters, this.#part(into, 0));
    this.#device.copy(firstMoment, this.#part(into, 1));
    this.#device.copy(secondMoment, this.#part(into, 2));
    for (const { addend, sum } of additions) this.#device.add(addend, sum);
  }

  outerStep({ replicas, learningRate, momentum }: OuterSettings): () => number {
    const { sharing } = this.#device;
    const { total } = this.#exchange;
    const before = sharing?.mark();
    this.#exchange.reduce();
    const after = sharing?.mark();
    const { parameters, firstMoment, secondMoment } = this.#trained;
    this.#device.outerStep({
      ...{ changes: this.#part(total, 0), replicas, learningRate, momentum },
      ...{ start: this.#start[0]!, velocity: this.#velocity, parameters },
    });
    this.#device.divide(this.#part(total, 1), replicas, firstMoment);
    this.#device.divide(this.#part(total, 2), replicas, secondMoment);
    return () => (sharing && before !== undefined && after !== undefined ? sharing.elapsedMs(before, after) : 0);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#device.free?.(this.#memory);
  }

  /** Vector `index` of several, [P]. */
  #part(vectors: F, index: number): F {
    return this.#device.slice(vectors, index * this.#size, this.#size);
  }
}

/** Where replica `replica` of `node` goes, whose sum is to be `into`; right subtrees are added up in `rightOfDepth`. */
function placeOf<F>(node: ReductionNode, replica: number, into: F, rightOfDepth: readonly F[], depth = 0): Place<F> {
  const split = splitPoint(node);
  if (split === undefined) return { into, additions: [] };
  if (replica < split) return placeOf({ lo: node.lo, hi: split }, replica, into, rightOfDepth, depth + 1);
  const right = rightOfDepth[depth]!;
  const place = placeOf({ lo: split, hi: node.hi }, replica, right, rightOfDepth, depth + 1);
  const isLast = replica === node.hi - 1;
  return isLast ? { ...place, additions: [...place.additions, { addend: right, sum: into }] } : place;
}

/** Levels of the tree below a node, each of which may have a right subtree. */
function levelsOf({ lo, hi }: ReductionNode): number {
  return Math.ceil(Math.log2(hi - lo));
}
