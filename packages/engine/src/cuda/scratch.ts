import type { Address } from "./driver.js";
import type { CudaRuntime } from "./runtime.js";

/** Bytes by purpose. */
export type Wishes = Readonly<Record<string, number>>;

/** Device memory that operations use between two kernels, one stretch per purpose, as large as the largest wish. */
export class Scratch {
  readonly #runtime: CudaRuntime;
  readonly #stretches = new Map<string, { address: Address; bytes: number }>();

  constructor(runtime: CudaRuntime) {
    this.#runtime = runtime;
  }

  /** Its contents are those of whoever had it last. @throws SegueError DEVICE_OUT_OF_MEMORY */
  take(purpose: string, bytes: number): Address {
    const known = this.#stretches.get(purpose);
    if (known && known.bytes >= bytes) return known.address;
    if (known) {
      this.#stretches.delete(purpose);
      this.#runtime.release(known.address);
    }
    const address = this.#runtime.allocate(bytes);
    this.#stretches.set(purpose, { address, bytes });
    return address;
  }

  /** Gives everything back. */
  release(): void {
    for (const { address } of this.#stretches.values()) this.#runtime.release(address);
    this.#stretches.clear();
  }
}
