import { SegueError } from "@segue/core";
import { OUT_OF_MEMORY, type Address, type Driver } from "./driver.js";

const MEGABYTE = 2 ** 20;
/** Released stretches that are kept for whoever asks for as much: one, and all together. */
const MOST_SPARE_BYTES = { each: 64 * MEGABYTE, all: 256 * MEGABYTE } as const;

/** What kernels, recorded work and the libraries take beside what is counted here. */
const UNCOUNTED_BYTES = 512 * MEGABYTE;

/** The device memory of one GPU that this process holds. */
export class DeviceMemory {
  readonly #driver: Driver;
  readonly #gpuName: string;
  readonly #mostBytes: number;
  readonly #beforeFreeing: () => void;
  readonly #taken = new Map<Address, number>();
  /** By size. Whoever forks states takes and releases the same sizes again and again; recorded work outlives that. */
  readonly #spare = new Map<number, Address[]>();
  #spareBytes = 0;
  #bytes = 0;
  #peakBytes = 0;

  /**
   * @param mostBytes asked of the driver at any time
   * @param beforeFreeing waits for the work under way and forgets what was recorded
   */
  constructor(driver: Driver, gpuName: string, mostBytes: number, beforeFreeing: () => void) {
    this.#driver = driver;
    this.#gpuName = gpuName;
    this.#mostBytes = mostBytes;
    this.#beforeFreeing = beforeFreeing;
  }

  /** Bytes asked of the driver. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The most there ever were. */
  get peakBytes(): number {
    return this.#peakBytes;
  }

  /**
   * Memory with anybody's contents.
   * @throws SegueError DEVICE_OUT_OF_MEMORY
   */
  take(bytes: number): Address {
    const address = this.#takeSpare(bytes) ?? this.#newStretch(bytes);
    this.#taken.set(address, bytes);
    return address;
  }

  /** To the driver. */
  release(address: Address): void {
    const bytes = this.#taken.get(address);
    if (bytes === undefined) return;
    this.#taken.delete(address);
    this.#free(new Map([[address, bytes]]));
  }

  /** For whoever asks for as much next, in the order of the stream: work under way may still use it. Large stretches are released. */
  recycle(address: Address): void {
    const bytes = this.#taken.get(address);
    if (bytes === undefined) return;
    if (bytes > MOST_SPARE_BYTES.each || this.#spareBytes + bytes > MOST_SPARE_BYTES.all) return this.release(address);
    this.#taken.delete(address);
    const spare = this.#spare.get(bytes);
    if (spare) spare.push(address);
    else this.#spare.set(bytes, [address]);
    this.#spareBytes += bytes;
  }

  /** What could still be taken for good. */
  freeBytes(): number {
    return Math.min(this.#freeAndTotal().free - UNCOUNTED_BYTES, this.#mostBytes - this.#bytes) + this.#spareBytes;
  }

  close(): void {
    this.#freeSpares();
    this.#free(this.#taken);
    this.#taken.clear();
  }

  #takeSpare(bytes: number): Address | undefined {
    const address = this.#spare.get(bytes)?.pop();
    if (address !== undefined) this.#spareBytes -= bytes;
    return address;
  }

  #newStretch(bytes: number): Address {
    const out = new BigUint64Array(1);
    const attempt = (): number =>
      this.#bytes + bytes > this.#mostBytes ? OUT_OF_MEMORY : this.#driver.attempt("cuMemAlloc_v2", out, bytes);
    let status = attempt();
    if (status === OUT_OF_MEMORY && this.#spareBytes > 0) {
      this.#freeSpares();
      status = attempt();
    }
    if (status === OUT_OF_MEMORY) throw this.#outOfMemory(bytes);
    if (status !== 0) this.#driver.call("cuMemAlloc_v2", out, bytes);
    this.#bytes += bytes;
    this.#peakBytes = Math.max(this.#peakBytes, this.#bytes);
    return Number(out[0]);
  }

  #freeSpares(): void {
    const spares = new Map([...this.#spare].flatMap(([bytes, addresses]) => addresses.map((address) => [address, bytes])));
    this.#spare.clear();
    this.#spareBytes = 0;
    this.#free(spares);
  }

  #free(stretches: ReadonlyMap<Address, number>): void {
    this.#beforeFreeing();
    for (const [address, bytes] of stretches) {
      this.#driver.call("cuMemFree_v2", address);
      this.#bytes -= bytes;
    }
  }

  #freeAndTotal(): { free: number; total: number } {
    const [free, total] = [new BigUint64Array(1), new BigUint64Array(1)];
    this.#driver.call("cuMemGetInfo_v2", free, total);
    return { free: Number(free[0]), total: Number(total[0]) };
  }

  #outOfMemory(bytes: number): SegueError {
    const { free, total } = this.#freeAndTotal();
    const mib = (n: number): string => `${Math.ceil(n / MEGABYTE)} MiB`;
    const limit = this.#mostBytes < Infinity ? ` and may hold ${mib(this.#mostBytes)}` : "";
    const holds = `this engine holds ${mib(this.#bytes)}${limit}`;
    return new SegueError(
      "DEVICE_OUT_OF_MEMORY",
      `${this.#gpuName} has ${mib(free)} of ${mib(total)} left and ${mib(bytes)} more are needed; ${holds}`,
      { status: "RESOURCE_EXHAUSTED" },
    );
  }
}
