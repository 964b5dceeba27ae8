import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { SegueError } from "@segue/core";
import type { CallName, ComputeCalls, ComputeRequest, ComputeResponse, ComputeThreadData } from "./calls.js";

/** The compute thread's module as built; tests start one with an engine of their own. */
export const defaultComputeModule = new URL("./thread.js", import.meta.url);

interface Waiting {
  readonly resolve: (response: unknown) => void;
  readonly reject: (error: SegueError) => void;
}

/** Of the fence: every call is void. */
const LAST_EPOCH = 2 ** 31 - 1;

/** A shard that is computed is not given up; a device that hangs is. */
const END_PATIENCE_MS = 30_000;

/** Owns one compute thread. Calls run in the order they are made; a thread that dies fails all of them with ENGINE_CRASHED. */
export class ComputeThread {
  readonly #fence = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #closing: Promise<void> | undefined;
  #dead: SegueError | undefined;

  constructor(module: URL) {
    const workerData: ComputeThreadData = { fence: this.#fence };
    this.#worker = new Worker(module, { workerData, name: "compute" });
    this.#worker.on("message", (response: ComputeResponse) => this.#settle(response));
    this.#worker.on("error", (error) => this.#die(crashed(`the compute thread failed: ${String(error)}`, error)));
    this.#worker.on("exit", (code) => this.#die(crashed(`the compute thread ended with code ${code}`)));
  }

  /** False once the thread has ended. */
  get alive(): boolean {
    return this.#dead === undefined;
  }

  /** Calls `name` on the thread. Throws SegueError with the engine's code, VOID or ENGINE_CRASHED. */
  call<Name extends CallName>(name: Name, request: ComputeCalls[Name]["request"]): Promise<ComputeCalls[Name]["response"]> {
    if (this.#dead) return Promise.reject(this.#dead);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (response: unknown) => void, reject });
      const message: ComputeRequest = { id, name, request };
      this.#worker.postMessage(message);
    });
  }

  /** Voids every call of an epoch below `epoch`: waiting ones do nothing, a running one stops after the shard it computes. */
  raiseFence(epoch: number): void {
    Atomics.store(this.#fence, 0, epoch);
  }

  /** Ends the thread when it has given back what it holds of a device; waiting calls fail. Idempotent. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    const isAlive = this.#dead === undefined;
    this.raiseFence(LAST_EPOCH);
    this.#die(crashed("the compute thread was closed"));
    if (isAlive) {
      // Terminated in the middle of its work, it would leave memory of the device behind, which is this process's.
      const ended = once(this.#worker, "exit");
      const request: ComputeRequest = { id: 0, name: "end", request: {} };
      this.#worker.postMessage(request);
      await Promise.race([ended, sleep(END_PATIENCE_MS, undefined, { ref: false })]);
    }
    await this.#worker.terminate();
  }

  #settle(response: ComputeResponse): void {
    const waiting = this.#waiting.get(response.id);
    if (!waiting) return;
    this.#waiting.delete(response.id);
    if (response.ok) {
      waiting.resolve(response.response);
      return;
    }
    const cause = response.stack === undefined ? undefined : { stack: response.stack };
    waiting.reject(new SegueError(response.code, response.message, { status: "INTERNAL", cause }));
  }

  #die(error: SegueError): void {
    this.#dead ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#dead);
    this.#waiting.clear();
  }
}

function crashed(message: string, cause?: unknown): SegueError {
  return new SegueError("ENGINE_CRASHED", message, { status: "INTERNAL", cause });
}
