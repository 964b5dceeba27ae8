import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";

/** And at most half of the cores: the rest computes and serves. */
const MOST_THREADS = 4;

/** A string, so that a thread starts in milliseconds, whatever loaders this process runs under. */
const THREAD = `
const { createHash } = require("node:crypto");
const { parentPort } = require("node:worker_threads");
parentPort.on("message", ({ id, buffer, offset, length }) => {
  const digest = createHash("sha256").update(new Uint8Array(buffer, offset, length)).digest();
  parentPort.postMessage({ id, digest: new Uint8Array(digest) });
});
`;

interface Waiting {
  readonly resolve: (digest: Uint8Array) => void;
  readonly reject: (error: Error) => void;
}

interface HashThread {
  readonly worker: Worker;
  readonly waiting: Map<number, Waiting>;
}

/** Threads that hash shared memory where it lies. They start with the first call and never keep a process alive that waits for nothing. */
class HashThreads {
  readonly #threads: HashThread[] = [];
  #nextId = 0;

  sha256(bytes: Uint8Array<SharedArrayBuffer>): Promise<Uint8Array> {
    const { worker, waiting } = this.#leastBusy();
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      waiting.set(id, { resolve, reject });
      worker.ref();
      worker.postMessage({ id, buffer: bytes.buffer, offset: bytes.byteOffset, length: bytes.byteLength });
    });
  }

  #leastBusy(): HashThread {
    const idle = this.#threads.find(({ waiting }) => waiting.size === 0);
    if (idle) return idle;
    if (this.#threads.length < Math.min(MOST_THREADS, Math.ceil(availableParallelism() / 2))) return this.#start();
    return this.#threads.reduce((least, thread) => (thread.waiting.size < least.waiting.size ? thread : least));
  }

  #start(): HashThread {
    const worker = new Worker(THREAD, { eval: true, name: "hash" });
    const thread: HashThread = { worker, waiting: new Map() };
    worker.unref();
    worker.on("message", ({ id, digest }: { id: number; digest: Uint8Array }) => {
      thread.waiting.get(id)?.resolve(digest);
      thread.waiting.delete(id);
      if (thread.waiting.size === 0) worker.unref();
    });
    const fail = (error: Error): void => {
      const at = this.#threads.indexOf(thread);
      if (at >= 0) this.#threads.splice(at, 1);
      for (const { reject } of thread.waiting.values()) reject(error);
      thread.waiting.clear();
    };
    worker.on("error", fail);
    worker.on("exit", (code) => fail(new Error(`a thread that hashes ended with code ${code}`)));
    this.#threads.push(thread);
    return thread;
  }
}

const threads = new HashThreads();

/** SHA-256 of bytes in shared memory, which stay as they are meanwhile, without a copy. */
export function sharedSha256(bytes: Uint8Array<SharedArrayBuffer>): Promise<Uint8Array> {
  return threads.sha256(bytes);
}
