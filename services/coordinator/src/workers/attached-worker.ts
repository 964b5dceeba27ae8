import { Tensors, type AttachResponseSchema, type Client, type GpuLoad, type Hello } from "@segue/protocol";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { connectClient, type Security } from "@segue/runtime";
import { AsyncQueue } from "../async-queue.js";
import type { Computing } from "./kind.js";
import type { Room } from "./room.js";
import type { StepTimes } from "../run/stragglers.js";

type Outgoing = MessageInitShape<typeof AttachResponseSchema>;
export type OutgoingMessage = NonNullable<Outgoing["message"]>;

/** One worker's stream, from Hello to its end. */
export class AttachedWorker {
  readonly workerId: string;
  readonly hello: Hello;
  readonly outgoing = new AsyncQueue<Outgoing>();
  /** Job that has claimed it. */
  jobId: string | undefined;
  draining = false;
  /** Its weights differed from those of the majority: no job trusts it until it attaches again. */
  expelled = false;
  /** Milliseconds of computing one shard of one step, smoothed; 0: unknown. */
  shardMs = 0;
  /** undefined: unknown. */
  stepTimes: StepTimes | undefined;
  /** It was too slow for the job it works on, or worked on last. */
  straggler = false;
  /** Heartbeat intervals since the last sign of life. */
  missedHeartbeats = 0;
  rssBytes = 0;
  /** undefined: it does not tell, or has no GPU. */
  gpuLoad: GpuLoad | undefined;
  step = 0;
  seenAtMs = Date.now();
  readonly #gone = new AbortController();
  readonly #security: Security;
  #tensors: Client<typeof Tensors> | undefined;

  constructor(workerId: string, hello: Hello, security: Security) {
    this.workerId = workerId;
    this.hello = hello;
    this.#security = security;
  }

  /** What decides its bits. */
  get computing(): Computing {
    return { engines: this.hello.engines, gpu: this.hello.gpu?.name };
  }

  /** What decides whether a job fits. */
  get room(): Room {
    const { name, memoryBytes, gpu } = this.hello;
    return { ...this.computing, name, memoryBytes: Number(memoryBytes), gpuBytes: Number(gpu?.memoryBytes ?? 0n) };
  }

  /** Queued at once; dropped when the stream is over. */
  send(message: OutgoingMessage): void {
    this.outgoing.push({ message });
  }

  /** Its Tensors service. */
  get tensors(): Client<typeof Tensors> {
    this.#tensors ??= connectClient(Tensors, this.hello.tensorsAddress, this.#security);
    return this.#tensors;
  }

  /** Aborts when the worker has left the pool: nothing more is to be expected from it. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** Ends the stream after what is queued, and everything that is pulled from the worker. Idempotent. */
  close(): void {
    this.#gone.abort();
    this.outgoing.close();
    this.#tensors?.close();
  }
}
