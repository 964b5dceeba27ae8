import type { Copying } from "../devices/device.js";
import type { Address, Driver } from "./driver.js";

const NON_BLOCKING = 1;
/** No timing: waits are cheaper. */
const DISABLE_TIMING = 2;
/** For every context of this process. */
const PORTABLE = 1;
const ALREADY_REGISTERED = 712;

/** Part of device memory and where it goes. */
export interface CopyOut {
  readonly from: Address;
  readonly to: Float32Array;
}

/**
 * Copies from device memory to the host beside the work of a stream. Memory of the host is pinned when it is first seen (0.5 s a GiB), so that
 * the GPU writes it by itself; it stays pinned, and is kept, until this is closed.
 */
export class CopyStream {
  readonly #driver: Driver;
  readonly #await: (event: Address) => void;
  readonly #stream: Address;
  readonly #pinned = new Map<ArrayBufferLike, Float32Array>();

  /** @param awaitEvent waits for an event */
  constructor(driver: Driver, awaitEvent: (event: Address) => void) {
    this.#driver = driver;
    this.#await = awaitEvent;
    this.#stream = driver.result("cuStreamCreate", NON_BLOCKING);
  }

  /** Copies behind the work that `stream` has so far. */
  copyOut(copies: readonly CopyOut[], stream: Address): Copying {
    for (const { to } of copies) this.#pin(to);
    const begun = this.#driver.result("cuEventCreate", DISABLE_TIMING);
    this.#driver.call("cuEventRecord", begun, stream);
    this.#driver.call("cuStreamWaitEvent", this.#stream, begun, 0);
    for (const { from, to } of copies) {
      if (to.length > 0) this.#driver.call("cuMemcpyDtoHAsync_v2", to, from, to.byteLength, this.#stream);
    }
    const ended = this.#driver.result("cuEventCreate", DISABLE_TIMING);
    this.#driver.call("cuEventRecord", ended, this.#stream);
    this.#driver.call("cuEventDestroy_v2", begun);
    let isOver = false;
    return {
      wait: () => {
        if (isOver) return;
        this.#await(ended);
        isOver = true;
        this.#driver.call("cuEventDestroy_v2", ended);
      },
      fence: () => {
        if (!isOver) this.#driver.call("cuStreamWaitEvent", stream, ended, 0);
      },
    };
  }

  close(): void {
    this.#driver.call("cuStreamSynchronize", this.#stream);
    this.#driver.call("cuStreamDestroy_v2", this.#stream);
    for (const whole of this.#pinned.values()) this.#driver.attempt("cuMemHostUnregister", whole);
    this.#pinned.clear();
  }

  /** What cannot be pinned is copied all the same, by way of the driver's own memory. */
  #pin({ buffer }: Float32Array): void {
    if (this.#pinned.has(buffer) || buffer.byteLength === 0) return;
    const whole = new Float32Array(buffer, 0, Math.floor(buffer.byteLength / Float32Array.BYTES_PER_ELEMENT));
    const status = this.#driver.attempt("cuMemHostRegister_v2", whole, buffer.byteLength, PORTABLE);
    if (status === 0 || status === ALREADY_REGISTERED) this.#pinned.set(buffer, whole);
  }
}
