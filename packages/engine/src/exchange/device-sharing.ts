import { splitPoint, type ReductionNode } from "@segue/core";

/** Floats that several processes of this host read. */
export interface SharedFloats<F> {
  readonly floats: F;
  /** Tells others where they are. */
  readonly handle: string;
  close(): void;
}

/**
 * 32-bit numbers that grow: what others write, this process's work waits for. Both happen in the order of the device's work, behind what was
 * asked for before. Numbers begin at 0.
 */
export interface Signals {
  readonly handle: string;
  write(index: number, value: number): void;
  /** At once, not in the order of the device's work. */
  set(index: number, value: number): void;
  /** What comes after goes on once the number is at least `value`. */
  wait(index: number, value: number): void;
  read(index: number): number;
  close(): void;
}

/** How a device's wait for others ends early. */
export interface Watch {
  /** Called over and over while this thread waits; what it throws ends the wait. */
  readonly check: () => void;
  /** Lets go of everything that the device's work still waits for, so that it ends. */
  readonly letGo: () => void;
}

/** A sum in a fixed order: a number is a source's place, a pair is left + right. */
export type SumOrder = number | readonly [left: SumOrder, right: SumOrder];

/** What a device can do for members on the same host. */
export interface DeviceSharing<F> {
  /** Zeroed. @throws SegueError EXCHANGE_UNAVAILABLE, DEVICE_OUT_OF_MEMORY */
  share(length: number): SharedFloats<F>;
  /** What {@link share} of another process made. @throws SegueError EXCHANGE_UNAVAILABLE */
  open(handle: string): SharedFloats<F>;
  /** For others to write. */
  signals(count: number): Signals;
  openSignals(handle: string): Signals;
  /** `into` becomes the sum of the sources, in float32; all are as long. */
  sum(sources: readonly F[], order: SumOrder, into: F): void;
  /** Rounds to bfloat16, in place: to the nearest, ties to even. */
  round(floats: F): void;
  /** Every wait of this thread for the device is watched from now on; undefined: no more. */
  watch(watch: Watch | undefined): void;
  /** Notes the place in the device's work. */
  mark(): Mark;
  /** Milliseconds between two marks that the device has passed; gives them back. */
  elapsedMs(from: Mark, to: Mark): number;
}

export type Mark = number;

/** The order in which nodes that make up `root` are added: that of the reduction tree. @throws RangeError when one is missing */
export function sumOrder(root: ReductionNode, nodes: readonly ReductionNode[]): SumOrder {
  const place = nodes.findIndex(({ lo, hi }) => lo === root.lo && hi === root.hi);
  if (place >= 0) return place;
  const split = splitPoint(root);
  if (split === undefined) throw new RangeError(`nobody has the sum of shard ${root.lo}`);
  return [sumOrder({ lo: root.lo, hi: split }, nodes), sumOrder({ lo: split, hi: root.hi }, nodes)];
}
