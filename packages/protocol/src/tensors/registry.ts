import { status } from "@grpc/grpc-js";
import { onAbort } from "../abort.js";
import { RpcError } from "../rpc-error.js";
import { memoryBytes, tensorBytes, type MemoryTensor } from "./tensor.js";

/** Longest wait for a tensor that is not there yet; callers that want to wait longer ask again. */
export const MAX_WAIT_MS = 60_000;

/** The tensors a process offers to its peers, by reference. Entries are immutable: a reference always means the same bytes. */
export class TensorRegistry {
  readonly #tensors = new Map<string, MemoryTensor>();
  readonly #waiters = new Map<string, Set<() => void>>();
  #closed = false;

  /**
   * Offers a tensor; its data is kept, not copied, and must not change any more.
   * @throws RpcError INVALID_ARGUMENT if data does not fit dtype and shape, ALREADY_EXISTS for a reference in use
   */
  publish(ref: string, tensor: MemoryTensor): void {
    if (this.#closed) throw new RpcError(status.UNAVAILABLE, "REGISTRY_CLOSED", `cannot publish ${ref}: the registry is closed`);
    const bytes = tensorBytes(tensor.dtype, tensor.shape);
    const present = memoryBytes(tensor);
    if (bytes !== present) {
      const has = `${present} bytes, its ${tensor.dtype} shape [${tensor.shape.join(", ")}] needs ${bytes}`;
      throw new RpcError(status.INVALID_ARGUMENT, "TENSOR_SIZE_MISMATCH", `${ref} has ${has}`);
    }
    if (this.#tensors.has(ref)) throw new RpcError(status.ALREADY_EXISTS, "TENSOR_EXISTS", `${ref} is published already`);
    this.#tensors.set(ref, tensor);
    this.#wake(ref);
  }

  get closed(): boolean {
    return this.#closed;
  }

  has(ref: string): boolean {
    return this.#tensors.has(ref);
  }

  get(ref: string): MemoryTensor | undefined {
    return this.#tensors.get(ref);
  }

  /** Forgets a tensor; pulls that are under way still finish. */
  remove(ref: string): boolean {
    return this.#tensors.delete(ref);
  }

  /** Forgets every tensor whose reference starts with the prefix; returns how many. */
  removePrefix(prefix: string): number {
    let removed = 0;
    for (const ref of this.#tensors.keys()) {
      if (ref.startsWith(prefix) && this.#tensors.delete(ref)) removed++;
    }
    return removed;
  }

  /** The tensor as soon as it is published; undefined after waitMs, on abort, or when the registry closes. */
  waitFor(ref: string, waitMs: number, signal?: AbortSignal): Promise<MemoryTensor | undefined> {
    const present = this.#tensors.get(ref);
    if (present || waitMs <= 0 || this.#closed || signal?.aborted) return Promise.resolve(present);
    return new Promise((resolve) => {
      const waiters = this.#waiters.get(ref) ?? new Set();
      this.#waiters.set(ref, waiters);
      const finish = (): void => {
        clearTimeout(timer);
        forget();
        waiters.delete(finish);
        if (waiters.size === 0 && this.#waiters.get(ref) === waiters) this.#waiters.delete(ref);
        resolve(this.#tensors.get(ref));
      };
      waiters.add(finish);
      const timer = setTimeout(finish, waitMs);
      const forget = onAbort(signal, finish);
    });
  }

  /** Forgets everything and ends every wait. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#tensors.clear();
    for (const ref of [...this.#waiters.keys()]) this.#wake(ref);
  }

  #wake(ref: string): void {
    for (const finish of [...(this.#waiters.get(ref) ?? [])]) finish();
  }
}
