import { createHash, type Hash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { parameterLayout, validateJobSpec } from "@segue/core";
import { AttachRequestSchema, create, type AttachResponse, type Join, type RunRound, type Segments } from "@segue/protocol";
import { jobSpecInputFromProto } from "@segue/runtime";
import type { AttachMessage } from "../../services/worker/src/attach/attach-message.js";
import { openAttachStream, type AttachStream } from "./attach-stream.js";

export interface SimulatedWorkerOptions {
  readonly name: string;
  readonly coordinator: string;
  readonly tensorsAddress: string;
  /** How long a step of a round pretends to take. */
  readonly stepMs: number;
}

/** What a simulated worker has seen so far. */
export interface WorkerTally {
  /** Segments received: one for each of its shards and each step. */
  segments: number;
  received: number;
  sent: number;
  rounds: number;
  generations: number;
  /** The longest that a pulse of the coordinator came after its time; this process's own delays are in it. */
  lateMs: number;
  /** Whatever was not as docs/design/cluster-protocol.md says. */
  readonly faults: string[];
}

/** Tokens of one shard, hashed in the order in which they came. */
export interface ShardTally {
  readonly shard: number;
  readonly steps: number;
  readonly sha256: string;
}

/** A worker's part in the present generation of a job. */
interface Part {
  readonly jobId: string;
  readonly generation: number;
  readonly shards: readonly { readonly shard: number; readonly hash: Hash }[];
  /** The step whose segments come next. */
  nextStep: number;
  /** Steps done. */
  step: number;
  round: RunRound | undefined;
}

/** A worker without an engine: a real connection, the real order of messages, results made up so that all members agree. */
export class SimulatedWorker {
  readonly tally: WorkerTally = { segments: 0, received: 0, sent: 0, rounds: 0, generations: 0, lateMs: 0, faults: [] };
  /** Resolves when the coordinator has welcomed it. */
  readonly attached: Promise<void>;
  readonly #options: SimulatedWorkerOptions;
  #stream: AttachStream | undefined;
  #welcomed: () => void = () => undefined;
  #workerId = "";
  #heartbeatMs = 0;
  #heartbeats: NodeJS.Timeout | undefined;
  #pulseAtMs = 0;
  #part: Part | undefined;
  #closed = false;

  constructor(options: SimulatedWorkerOptions) {
    this.#options = options;
    this.attached = new Promise((resolve) => (this.#welcomed = resolve));
  }

  /** Opens the stream. Whatever ends it but {@link close} is a fault. */
  attach(): void {
    const { name, coordinator, tensorsAddress } = this.#options;
    this.#stream = openAttachStream(coordinator);
    const { call } = this.#stream;
    call.on("data", (response: AttachResponse) => {
      this.tally.received++;
      this.#handle(response.message);
    });
    call.on("end", () => this.#ended("the coordinator ended the stream"));
    call.on("error", (error) => this.#ended(error.message));
    this.#send({ case: "hello", value: { name, tensorsAddress, engines: ["cpu"], device: "simulated", threads: 1 } });
  }

  /** Of the shards it has in the present generation. */
  shards(): ShardTally[] {
    const steps = this.#part?.nextStep ?? 0;
    return (this.#part?.shards ?? []).map(({ shard, hash }) => ({ shard, steps, sha256: hash.copy().digest("hex") }));
  }

  /** Ends the stream. Idempotent. */
  close(): void {
    this.#closed = true;
    clearInterval(this.#heartbeats);
    this.#stream?.close();
  }

  #ended(why: string): void {
    if (this.#closed) return;
    this.#fault(why);
    this.close();
    // Whoever waits for it is told by the fault.
    this.#welcomed();
  }

  #handle(message: AttachResponse["message"]): void {
    switch (message.case) {
      case "welcome":
        this.#workerId = message.value.workerId;
        this.#heartbeatMs = message.value.heartbeatMs;
        this.#pulseAtMs = performance.now();
        this.#heartbeats = setInterval(() => this.#heartbeat(), this.#heartbeatMs);
        this.#welcomed();
        break;
      case "pulse": {
        const nowMs = performance.now();
        this.tally.lateMs = Math.max(this.tally.lateMs, nowMs - this.#pulseAtMs - this.#heartbeatMs);
        this.#pulseAtMs = nowMs;
        break;
      }
      case "join":
        this.#join(message.value);
        break;
      case "segments":
        this.#segments(message.value);
        break;
      case "runRound":
        this.#runRound(message.value);
        break;
      case "withdraw":
      case "release":
        if (this.#part?.jobId === message.value.jobId) this.#part.round = undefined;
        break;
      case undefined:
        break;
    }
  }

  #join({ jobId, generation, step, members, spec }: Join): void {
    const shards = members.find(({ workerId }) => workerId === this.#workerId)?.shards ?? [];
    const hashed = shards.map((shard) => ({ shard, hash: createHash("sha256") }));
    this.#part = { jobId, generation, shards: hashed, nextStep: step, step, round: undefined };
    this.tally.generations++;
    const parameters = BigInt(parametersOf(jobId, spec));
    this.#send({ case: "ready", value: { jobId, generation, step, parameters, engine: "simulated" } });
  }

  #segments({ generation, step, shards }: Segments): void {
    const part = this.#part;
    if (part?.generation !== generation) return this.#fault(`segments of generation ${generation}`);
    if (step !== part.nextStep) return this.#fault(`segments of step ${step} instead of ${part.nextStep}`);
    if (shards.length !== part.shards.length) return this.#fault(`${shards.length} shards instead of ${part.shards.length}`);
    shards.forEach(({ shard, tokens }, index) => {
      const own = part.shards[index];
      if (own?.shard === shard) own.hash.update(tokens);
      else this.#fault(`a segment of shard ${shard} instead of ${own?.shard}`);
    });
    this.tally.segments += shards.length;
    part.nextStep++;
    if (part.round) this.#startWhenFed(part, part.round);
  }

  #runRound(round: RunRound): void {
    const part = this.#part;
    if (part?.generation !== round.generation) return this.#fault(`a round of generation ${round.generation}`);
    if (round.firstStep !== part.step) return this.#fault(`a round from step ${round.firstStep} instead of ${part.step}`);
    part.round = round;
    this.#startWhenFed(part, round);
  }

  #startWhenFed(part: Part, round: RunRound): void {
    if (part.nextStep < round.firstStep + round.steps) return;
    if (this.#options.stepMs === 0) this.#finish(part, round);
    else void sleep(this.#options.stepMs * round.steps).then(() => this.#finish(part, round));
  }

  #finish(part: Part, round: RunRound): void {
    if (part.round !== round || this.#part !== part) return;
    const { jobId, generation, firstStep, steps } = round;
    part.round = undefined;
    part.step = firstStep + steps;
    this.tally.rounds++;
    const shardLossSums = part.shards.map(() => 1);
    const results = Array.from({ length: steps }, (_, index) => ({
      ...{ step: firstStep + index, shardLossSums, gradientNorm: 1, learningRate: 0.001 },
      ...{ computeMs: this.#options.stepMs, exchangeMs: 0 },
    }));
    const weightsDigest = createHash("sha256").update(`${jobId} ${part.step}`).digest("hex");
    this.#send({ case: "roundDone", value: { jobId, generation, firstStep, steps, results, weightsDigest } });
  }

  #heartbeat(): void {
    const nowMs = Date.now();
    const sentAt = { seconds: BigInt(Math.floor(nowMs / 1000)), nanos: (nowMs % 1000) * 1e6 };
    this.#send({ case: "heartbeat", value: { sentAt, rssBytes: 0n, step: this.#part?.step ?? 0 } });
  }

  #send(message: AttachMessage): void {
    this.tally.sent++;
    this.#stream?.call.write(create(AttachRequestSchema, { message }));
  }

  #fault(text: string): void {
    this.tally.faults.push(`${this.#options.name}: ${text}`);
  }
}

const parameterCounts = new Map<string, number>();

/** The same for all workers of a process. */
function parametersOf(jobId: string, spec: Join["spec"]): number {
  let count = parameterCounts.get(jobId);
  if (count === undefined) {
    count = parameterLayout(validateJobSpec(spec && jobSpecInputFromProto(spec)).spec.model).size;
    parameterCounts.set(jobId, count);
  }
  return count;
}
