import { GpuMemory } from "./gpu-memory.js";
import { loadNccl, NCCL_IN_PROGRESS, NCCL_SUCCESS, ncclFailed, type Nccl } from "./nccl-library.js";

export interface CommunicatorOptions {
  /** Path of NCCL's library; absent: libnccl.so.2 by the loader's path. */
  readonly library?: string | undefined;
  readonly uniqueId: Uint8Array;
  readonly ranks: number;
  readonly rank: number;
  /** Ordinal of the GPU. */
  readonly device: number;
  /** Called over and over while others are waited for; what it throws gives the communicator up. */
  readonly check: () => void;
}

/** Part of an array for one rank, or from it. */
export interface Transfer {
  readonly rank: number;
  readonly floats: Float32Array;
}

/** Rounds of polling before this thread lets go of its core for a moment. */
const SPINS = 200;
const PAUSE_MS = 0.05;

/** One rank of a group of processes that exchange floats between GPUs. It adds nothing: sums are made in the order of the reduction tree. */
export class Communicator {
  readonly #nccl: Nccl;
  readonly #memory: GpuMemory;
  readonly #check: () => void;
  #address: number | undefined;

  /**
   * Meets the other ranks, which all have to come.
   * @throws SegueError NCCL_UNAVAILABLE, NCCL_FAILED; what `check` throws
   */
  constructor({ library, uniqueId, ranks, rank, device, check }: CommunicatorOptions) {
    this.#check = check;
    this.#memory = new GpuMemory(device);
    this.#nccl = loadNccl(library);
    this.#address = this.#nccl.init(uniqueId, ranks, rank);
    try {
      this.#wait(() => this.#isSettled());
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /**
   * Sends and receives, all at once. Between two ranks transfers pair up in the order they are listed.
   * @throws SegueError NCCL_FAILED; what `check` throws. The communicator is of no use then.
   */
  exchange(sends: readonly Transfer[], receives: readonly Transfer[]): void {
    const communicator = this.#open();
    const outgoing = this.#memory.buffer("outgoing", bytesOf(sends));
    const incoming = this.#memory.buffer("incoming", bytesOf(receives));
    const { stream } = this.#memory;
    for (const { floats, at } of placed(sends, outgoing)) this.#memory.upload(at, floats);
    this.#demand(this.#nccl.groupStart(), "ncclGroupStart");
    for (const { rank, floats, at } of placed(sends, outgoing)) {
      this.#demand(this.#nccl.send(at, floats.byteLength, rank, communicator, stream), "ncclSend");
    }
    for (const { rank, floats, at } of placed(receives, incoming)) {
      this.#demand(this.#nccl.receive(at, floats.byteLength, rank, communicator, stream), "ncclRecv");
    }
    this.#demand(this.#nccl.groupEnd(), "ncclGroupEnd");
    // The transfers are on the stream only when the group has been taken.
    this.#wait(() => this.#isSettled());
    for (const { floats, at } of placed(receives, incoming)) this.#memory.download(floats, at);
    this.#wait(() => this.#isSettled() && this.#memory.isIdle());
  }

  /** Gives the communicator up; ranks that wait for this one fail. Idempotent. */
  close(): void {
    if (this.#address === undefined) return;
    this.#nccl.abort(this.#address);
    this.#address = undefined;
    this.#memory.close();
  }

  #open(): number {
    if (this.#address === undefined) throw ncclFailed("the communicator is closed");
    return this.#address;
  }

  #isSettled(): boolean {
    const state = this.#nccl.progress(this.#open());
    if (state === NCCL_IN_PROGRESS) return false;
    this.#demand(state, "NCCL");
    return true;
  }

  #wait(isDone: () => boolean): void {
    const clock = new Int32Array(new SharedArrayBuffer(4));
    for (let spins = 0; !isDone(); spins++) {
      this.#check();
      if (spins >= SPINS) Atomics.wait(clock, 0, 0, PAUSE_MS);
    }
  }

  #demand(result: number, what: string): void {
    if (result === NCCL_SUCCESS || result === NCCL_IN_PROGRESS) return;
    throw ncclFailed(`${what}: ${this.#nccl.describe(result)}`);
  }
}

function bytesOf(transfers: readonly Transfer[]): number {
  return transfers.reduce((sum, { floats }) => sum + floats.byteLength, 0);
}

/** Transfers one after the other in a buffer on the GPU. */
function placed(transfers: readonly Transfer[], buffer: number): (Transfer & { readonly at: number })[] {
  let at = buffer;
  return transfers
    .filter(({ floats }) => floats.length > 0)
    .map((transfer) => {
      const here = at;
      at += transfer.floats.byteLength;
      return { ...transfer, at: here };
    });
}
