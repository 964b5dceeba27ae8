import { roundToBf16 } from "@segue/core";
import type { DeviceSharing, Mark, SharedFloats, Signals, SumOrder, Watch } from "../../exchange/device-sharing.js";
import { HostMemory } from "../../exchange/host-memory.js";
import { pollUntil } from "../../exchange/pause.js";
import { SignalWords } from "../../exchange/signal-words.js";

/** What a sum in fixed order is made with. */
interface Adding {
  floats(length: number): Float32Array;
  /** sum += addend */
  add(addend: Float32Array, sum: Float32Array): void;
}

/** Floats that are rounded at a time. */
const ROUNDED_AT_ONCE = 2 ** 16;

/** Sharing between processes that compute on the same processor: they map each other's memory. */
export class CpuSharing implements DeviceSharing<Float32Array> {
  readonly #adding: Adding;
  /** Sums of right halves, one a depth. */
  readonly #rightOfDepth: Float32Array[] = [];
  #roundedBits: Uint16Array | undefined;
  #watch: Watch | undefined;

  constructor(adding: Adding) {
    this.#adding = adding;
  }

  share(length: number): SharedFloats<Float32Array> {
    return floatsIn(HostMemory.create(length * Float32Array.BYTES_PER_ELEMENT));
  }

  open(handle: string): SharedFloats<Float32Array> {
    return floatsIn(HostMemory.open(handle));
  }

  signals(count: number): Signals {
    return this.#signalsOn(SignalWords.create(count));
  }

  openSignals(handle: string): Signals {
    return this.#signalsOn(SignalWords.open(handle));
  }

  sum(sources: readonly Float32Array[], order: SumOrder, into: Float32Array): void {
    this.#sum(sources, order, into, 0);
  }

  round(floats: Float32Array): void {
    const bits = (this.#roundedBits ??= new Uint16Array(ROUNDED_AT_ONCE));
    for (let begin = 0; begin < floats.length; begin += ROUNDED_AT_ONCE) {
      roundToBf16(floats.subarray(begin, begin + ROUNDED_AT_ONCE), bits);
    }
  }

  watch(watch: Watch | undefined): void {
    this.#watch = watch;
  }

  mark(): Mark {
    return performance.now();
  }

  elapsedMs(from: Mark, to: Mark): number {
    return to - from;
  }

  #sum(sources: readonly Float32Array[], order: SumOrder, into: Float32Array, depth: number): void {
    if (typeof order === "number") {
      into.set(sources[order]!);
      return;
    }
    const [left, right] = order;
    this.#sum(sources, left, into, depth + 1);
    if (typeof right === "number") return this.#adding.add(sources[right]!, into);
    let addend = this.#rightOfDepth[depth];
    if (!addend || addend.length < into.length) this.#rightOfDepth[depth] = addend = this.#adding.floats(into.length);
    addend = addend.subarray(0, into.length);
    this.#sum(sources, right, addend, depth + 1);
    this.#adding.add(addend, into);
  }

  #signalsOn(words: SignalWords): Signals {
    const set = (index: number, value: number): void => words.set(index, value);
    return {
      handle: words.memory.handle,
      set,
      write: set,
      wait: (index, value) =>
        pollUntil(
          () => words.get(index) >= value,
          () => this.#watch?.check(),
        ),
      read: (index) => words.get(index),
      close: () => words.memory.close(),
    };
  }
}

function floatsIn(memory: HostMemory): SharedFloats<Float32Array> {
  const { buffer, byteOffset, byteLength } = memory.bytes;
  const floats = new Float32Array(buffer, byteOffset, byteLength / Float32Array.BYTES_PER_ELEMENT);
  return { floats, handle: memory.handle, close: () => memory.close() };
}
