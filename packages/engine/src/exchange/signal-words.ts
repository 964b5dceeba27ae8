import { HostMemory } from "./host-memory.js";

/** Every number has a cache line of its own, since another process writes it. */
export const WORD_BYTES = 64;

/** Numbers in memory of the host, which the processes that map it read and write. */
export class SignalWords {
  readonly memory: HostMemory;
  readonly #words: Int32Array;

  private constructor(memory: HostMemory) {
    this.memory = memory;
    this.#words = new Int32Array(memory.bytes.buffer, memory.bytes.byteOffset, memory.bytes.length / Int32Array.BYTES_PER_ELEMENT);
  }

  static create(count: number): SignalWords {
    return new SignalWords(HostMemory.create(count * WORD_BYTES));
  }

  static open(handle: string): SignalWords {
    return new SignalWords(HostMemory.open(handle));
  }

  get(index: number): number {
    return Atomics.load(this.#words, (index * WORD_BYTES) / Int32Array.BYTES_PER_ELEMENT);
  }

  set(index: number, value: number): void {
    Atomics.store(this.#words, (index * WORD_BYTES) / Int32Array.BYTES_PER_ELEMENT, value);
  }
}
