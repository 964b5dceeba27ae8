import koffi from "koffi";
import type { Address, Driver } from "./driver.js";

/** Host memory that the GPU reads and writes by itself. */
export interface StagingSlot {
  readonly view: Uint8Array;
  readonly address: Address;
  readonly event: Address;
  taken: boolean;
}

const SMALLEST_BYTES = 4096;
/** No timing: waits are cheaper. */
const DISABLE_TIMING = 2;

/** Slots of pinned memory, used again once the GPU is done with them. */
export class Staging {
  readonly #driver: Driver;
  readonly #await: (event: Address) => void;
  readonly #slots: StagingSlot[] = [];

  /** @param awaitEvent waits for an event */
  constructor(driver: Driver, awaitEvent: (event: Address) => void) {
    this.#driver = driver;
    this.#await = awaitEvent;
  }

  /** A slot of at least so many bytes, nobody else's until it is given back. */
  take(bytes: number): StagingSlot {
    const size = Math.max(SMALLEST_BYTES, 2 ** Math.ceil(Math.log2(Math.max(1, bytes))));
    const free = this.#slots.find(
      ({ view, taken, event }) => !taken && view.length === size && this.#driver.attempt("cuEventQuery", event) === 0,
    );
    const slot = free ?? this.#newSlot(size);
    slot.taken = true;
    return slot;
  }

  /** To be called when the stream has been given its work with the slot. */
  record(slot: StagingSlot, stream: Address): void {
    this.#driver.call("cuEventRecord", slot.event, stream);
  }

  /** Waits for the recorded work. */
  wait(slot: StagingSlot): void {
    this.#await(slot.event);
  }

  /** Others may take it once the recorded work is done. */
  giveBack(slot: StagingSlot): void {
    slot.taken = false;
  }

  close(): void {
    for (const { address, event } of this.#slots.splice(0)) {
      this.#driver.call("cuEventDestroy_v2", event);
      this.#driver.call("cuMemFreeHost", address);
    }
  }

  #newSlot(bytes: number): StagingSlot {
    const address = this.#driver.result("cuMemAllocHost_v2", bytes);
    const view = new Uint8Array(koffi.view(BigInt(address), bytes));
    const slot = { view, address, event: this.#driver.result("cuEventCreate", DISABLE_TIMING), taken: false };
    this.#slots.push(slot);
    return slot;
  }
}
