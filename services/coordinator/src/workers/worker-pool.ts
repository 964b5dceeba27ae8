import { randomBytes } from "node:crypto";
import { SegueError } from "@segue/core";
import type { AttachRequest, Failure, Handlers, Ready, RoundDone, Workers } from "@segue/protocol";
import type { Logger, Security } from "@segue/runtime";
import { AttachedWorker } from "./attached-worker.js";

/** What a worker says about a job. */
export type WorkerMessage =
  | { readonly case: "ready"; readonly value: Ready }
  | { readonly case: "roundDone"; readonly value: RoundDone }
  | { readonly case: "failure"; readonly value: Failure };

export interface PoolListener {
  attached(worker: AttachedWorker): void;
  draining(worker: AttachedWorker): void;
  /** Its stream is over or it fell silent; it is no longer in the pool. */
  gone(worker: AttachedWorker): void;
  message(worker: AttachedWorker, message: WorkerMessage): void;
}

export interface WorkerPoolOptions {
  readonly heartbeatMs: number;
  readonly security: Security;
  readonly logger: Logger;
  readonly listener: PoolListener;
}

const MAX_MISSED_HEARTBEATS = 3;

/** The workers that are attached, kept honest by heartbeats. */
export class WorkerPool {
  readonly #options: WorkerPoolOptions;
  readonly #workers = new Map<string, AttachedWorker>();
  readonly #timer: NodeJS.Timeout;
  #closed = false;

  constructor(options: WorkerPoolOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.#beat(), options.heartbeatMs);
  }

  get workers(): readonly AttachedWorker[] {
    return [...this.#workers.values()];
  }

  get(workerId: string): AttachedWorker | undefined {
    return this.#workers.get(workerId);
  }

  /**
   * Lets a worker leave its job at the end of its round, and gives it no other until it attaches again. Idempotent.
   * @throws SegueError WORKER_NOT_FOUND
   */
  drain(workerId: string): AttachedWorker {
    const worker = this.#workers.get(workerId);
    if (!worker) {
      const message = `No worker ${workerId} is attached; segue workers lists those that are.`;
      throw new SegueError("WORKER_NOT_FOUND", message, { status: "NOT_FOUND" });
    }
    this.#drain(worker, "an operator wants it to leave");
    return worker;
  }

  get handlers(): Handlers<typeof Workers> {
    return { attach: (requests, { signal, peer }) => this.#attach(requests, signal, peer) };
  }

  /** Ends every stream after what is queued for it. Idempotent. */
  close(): void {
    this.#closed = true;
    clearInterval(this.#timer);
    for (const worker of this.#workers.values()) worker.close();
  }

  async *#attach(requests: AsyncIterable<AttachRequest>, signal: AbortSignal, peer: string) {
    const iterator = requests[Symbol.asyncIterator]();
    const worker = await this.#welcome(iterator, peer);
    const removed = (): void => this.#remove(worker, "its stream ended");
    signal.addEventListener("abort", removed, { once: true });
    void this.#receive(worker, iterator).then(removed, (error: unknown) => {
      this.#options.logger.warn({ event: "workerStreamBroken", workerId: worker.workerId, err: error }, "a worker's stream broke");
      removed();
    });
    try {
      yield* worker.outgoing;
    } finally {
      removed();
    }
  }

  async #welcome(requests: AsyncIterator<AttachRequest>, peer: string): Promise<AttachedWorker> {
    const first = await requests.next();
    if (first.done || first.value.message.case !== "hello") {
      throw new SegueError("HELLO_EXPECTED", "The first message of a worker must be Hello.");
    }
    if (this.#closed) {
      throw new SegueError("COORDINATOR_STOPPING", "The coordinator is stopping; attach again later.", {
        status: "UNAVAILABLE",
        retryable: true,
      });
    }
    const hello = first.value.message.value;
    const { name, tensorsAddress, engines, device } = hello;
    if (name === "" || tensorsAddress === "" || engines.length === 0) {
      throw new SegueError("HELLO_INCOMPLETE", "Hello needs a name, the address of the worker's Tensors service and its engines.");
    }
    for (const other of this.workers) {
      if (other.hello.name === name) this.#remove(other, "another worker of this name attached");
    }
    const worker = new AttachedWorker(`${name}-${randomBytes(3).toString("hex")}`, hello, this.#options.security);
    this.#workers.set(worker.workerId, worker);
    worker.send({ case: "welcome", value: { workerId: worker.workerId, heartbeatMs: this.#options.heartbeatMs } });
    const { workerId } = worker;
    this.#options.logger.info({ event: "workerAttached", workerId, peer, tensorsAddress, engines, device }, "a worker attached");
    this.#options.listener.attached(worker);
    return worker;
  }

  async #receive(worker: AttachedWorker, requests: AsyncIterator<AttachRequest>): Promise<void> {
    for (let next = await requests.next(); !next.done; next = await requests.next()) {
      if (this.#workers.get(worker.workerId) !== worker) return;
      worker.missedHeartbeats = 0;
      worker.seenAtMs = Date.now();
      const { message } = next.value;
      switch (message.case) {
        case "heartbeat":
          worker.rssBytes = Number(message.value.rssBytes);
          worker.step = message.value.step;
          worker.gpuLoad = message.value.gpuLoad;
          break;
        case "draining":
          this.#drain(worker, message.value.reason);
          break;
        case "ready":
        case "roundDone":
        case "failure":
          this.#options.listener.message(worker, message);
          break;
        case "hello":
        case undefined:
          break;
      }
    }
  }

  /** Counting intervals instead of comparing clocks: an event loop that was blocked blames nobody. */
  #beat(): void {
    for (const worker of this.workers) {
      worker.missedHeartbeats++;
      if (worker.missedHeartbeats > MAX_MISSED_HEARTBEATS) this.#remove(worker, "no heartbeat came");
      else worker.send({ case: "pulse", value: {} });
    }
  }

  #drain(worker: AttachedWorker, reason: string): void {
    if (worker.draining) return;
    worker.draining = true;
    this.#options.logger.info({ event: "workerDraining", workerId: worker.workerId, reason }, "a worker is to leave");
    this.#options.listener.draining(worker);
  }

  #remove(worker: AttachedWorker, reason: string): void {
    if (this.#workers.get(worker.workerId) !== worker) return;
    this.#workers.delete(worker.workerId);
    worker.close();
    this.#options.logger.info({ event: "workerGone", workerId: worker.workerId, reason }, "a worker is gone");
    this.#options.listener.gone(worker);
  }
}
