import assert from "node:assert/strict";
import { laneTokensPerStep, learningRateAt, randomStream, validateJobSpec, type JobSpec } from "@segue/core";
import {
  Workers,
  type AttachRequest,
  type AttachResponseSchema,
  type Hello,
  type MemberSchema,
  type MessageInitShape,
} from "@segue/protocol";
import { createLogger, jobSpecToProto, startGrpcServer, type GrpcServer } from "@segue/runtime";
import { Outbox } from "../../src/attach/outbox.js";
import { Worker, type WorkerOptions } from "../../src/worker.js";

type Command = NonNullable<MessageInitShape<typeof AttachResponseSchema>["message"]>;
type Message = AttachRequest["message"];
export type MessageOf<Case extends Message["case"]> = Extract<Message, { case: Case }>["value"];

export const fakeCompute = new URL("./fake-thread.mjs", import.meta.url);
export const engineCompute = new URL("./engine-thread.mjs", import.meta.url);
export const logger = createLogger("test", "silent");
export const JOB = "job-1";
/** Borders of pages lie inside tensors and lengths are odd, wherever a test does not say otherwise. */
export const TINY_PAGE_FLOATS = 211;

/** One worker's stream as the coordinator sees it. */
export class Attached {
  readonly hello: Hello;
  readonly workerId: string;
  readonly outbox = new Outbox<{ message: Command }>();
  readonly #received: Message[] = [];
  readonly #waiting = new Set<() => void>();
  ended = false;

  constructor(hello: Hello, workerId: string) {
    this.hello = hello;
    this.workerId = workerId;
  }

  send(message: Command): void {
    this.outbox.push({ message });
  }

  receive(message: Message): void {
    this.#received.push(message);
    this.#wake();
  }

  end(): void {
    this.ended = true;
    this.outbox.end();
    this.#wake();
  }

  /** The next message of a kind; others before it stay. A Failure where none is expected fails the test. */
  async next<Case extends "ready" | "roundDone" | "failure" | "draining" | "heartbeat">(kind: Case): Promise<MessageOf<Case>> {
    for (;;) {
      const index = this.#received.findIndex((message) => message.case === kind);
      if (index >= 0) return this.#received.splice(index, 1)[0]!.value as MessageOf<Case>;
      const failure = this.#received.find((message) => message.case === "failure");
      assert.equal(failure, undefined, `waiting for ${kind}`);
      assert.equal(this.ended, false, `the stream ended while waiting for ${kind}`);
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  holds(kind: Message["case"]): boolean {
    return this.#received.some((message) => message.case === kind);
  }

  async untilEnded(): Promise<void> {
    while (!this.ended) await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}

/** A coordinator that does what a test tells it, over real gRPC. */
export class ScriptedCoordinator {
  readonly #streams: Attached[] = [];
  readonly #waiting = new Set<() => void>();
  #server: GrpcServer | undefined;

  async start(listen = "127.0.0.1:0"): Promise<this> {
    const handlers = { attach: (requests: AsyncIterable<AttachRequest>) => this.#attach(requests) };
    this.#server = await startGrpcServer({ listen, services: [{ service: Workers, handlers }], logger });
    return this;
  }

  get address(): string {
    return this.#server!.address;
  }

  /** The `count`-th stream of a worker of this name, as soon as it is there. */
  async attached(name: string, count = 1): Promise<Attached> {
    for (;;) {
      const stream = this.#streams.filter((candidate) => candidate.hello.name === name)[count - 1];
      if (stream) return stream;
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  async close(): Promise<void> {
    for (const stream of this.#streams) stream.outbox.end();
    await this.#server?.close(200);
  }

  async *#attach(requests: AsyncIterable<AttachRequest>): AsyncGenerator<{ message: Command }, void, undefined> {
    const reader = requests[Symbol.asyncIterator]();
    const first = await reader.next();
    if (first.done || first.value.message.case !== "hello") return;
    const stream = new Attached(first.value.message.value, `worker-${this.#streams.length + 1}`);
    stream.send({ case: "welcome", value: { workerId: stream.workerId, heartbeatMs: 100 } });
    this.#streams.push(stream);
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
    const pulse = setInterval(() => stream.send({ case: "pulse", value: {} }), 1_000);
    void (async () => {
      for (let next = await reader.next(); !next.done; next = await reader.next()) stream.receive(next.value.message);
    })().finally(() => {
      clearInterval(pulse);
      stream.end();
    });
    yield* stream.outbox;
  }
}

export function startWorker(
  coordinator: string,
  name: string,
  computeModule = fakeCompute,
  engine: WorkerOptions["engine"] = "auto",
  pageFloats = TINY_PAGE_FLOATS,
): Promise<Worker> {
  return Worker.start({
    name,
    version: "0.0.0",
    listen: "127.0.0.1:0",
    coordinator,
    security: {},
    engine,
    threads: 1,
    pageFloats,
    logger,
    computeModule,
  });
}

export function tinySpec(shards: number, tbptt: object = {}, rest: object = {}): JobSpec {
  return validateJobSpec({
    name: "tiny",
    seed: 7,
    model: { layers: 1, dModel: 16, dState: 8, headDim: 8, expand: 2, dConv: 4, groups: 1, chunk: 8 },
    data: { passkey: { documentTokens: 512 } },
    tokenizer: { kind: "bytes" },
    tbptt: { segmentTokens: 16, ...tbptt },
    batch: { shards, lanesPerShard: 2 },
    train: { steps: 20 },
    ...rest,
  }).spec;
}

/** Members in the order given, each with its shards. */
export function members(...placed: readonly (readonly [Attached, readonly number[]])[]): MessageInitShape<typeof MemberSchema>[] {
  return placed.map(([{ workerId, hello }, shards]) => ({ workerId, tensorsAddress: hello.tensorsAddress, shards: [...shards] }));
}

/** The Join of a generation at step 0. */
export function joinOf({ spec, generation, placed }: Generation) {
  return { jobId: JOB, generation, spec: jobSpecToProto(spec), members: members(...placed) };
}

export interface Generation {
  readonly spec: JobSpec;
  readonly generation: number;
  readonly placed: readonly (readonly [Attached, readonly number[]])[];
}

type Moments = { begin: bigint; end: bigint; address: string }[];

/** Sends Join to all members and waits until all are ready. */
export async function join(
  { spec, generation, placed }: Generation,
  at: {
    step?: number;
    weightsAddress?: string;
    statesAddress?: string;
    weightsDigest?: string;
    transport?: string;
    moments?: Moments;
  } = {},
): Promise<MessageOf<"ready">[]> {
  for (const [stream] of placed) stream.send({ case: "join", value: { ...joinOf({ spec, generation, placed }), ...at } });
  return Promise.all(placed.map(([stream]) => stream.next("ready")));
}

interface RoundOptions {
  /** Replaces the first token of every segment of its step. */
  readonly mark?: { readonly step: number; readonly token: number };
  /** Promised of the round after it, whose segments are sent along. */
  readonly nextSteps?: number;
  /** Shards whose labels count in the total weight. @default those of the generation */
  readonly weighed?: readonly number[];
}

/** Sends the segments of a round and RunRound. */
export function sendRound(
  { spec, generation, placed }: Generation,
  firstStep: number,
  steps: number,
  { mark, nextSteps = 0, weighed }: RoundOptions = {},
): void {
  const all = weighed ?? placed.flatMap(([, shards]) => shards);
  for (const [stream, shards] of placed) {
    for (let step = firstStep; step < firstStep + steps + nextSteps; step++) {
      const segments = shards.map((shard) => segment(spec, step, shard, mark?.step === step ? mark.token : undefined));
      stream.send({
        case: "segments",
        value: {
          ...{ jobId: JOB, generation, step, totalWeight: weightOf(spec, step, all), shards: segments },
          learningRate: learningRateAt(step, spec.train.steps, spec.optimizer, spec.schedule),
        },
      });
    }
    stream.send({ case: "runRound", value: { jobId: JOB, generation, firstStep, steps, nextSteps } });
  }
}

/** Runs a round to its end; all members must report the same digest. */
export async function runRound(
  generation: Generation,
  firstStep: number,
  steps: number,
  options?: RoundOptions,
): Promise<MessageOf<"roundDone">[]> {
  sendRound(generation, firstStep, steps, options);
  const done = await Promise.all(generation.placed.map(([stream]) => stream.next("roundDone")));
  assert.equal(new Set(done.map((report) => report.weightsDigest)).size, 1, "all members have the same weights");
  return done;
}

/** Sum of the label weights of a step. */
function weightOf(spec: JobSpec, step: number, shards: readonly number[]): number {
  const weights = shards.map((shard) => new Float32Array(segment(spec, step, shard, undefined).weights.buffer));
  return weights.flatMap((values) => [...values]).reduce((sum, weight) => sum + weight, 0);
}

function segment(spec: JobSpec, step: number, shard: number, firstToken: number | undefined) {
  const entries = spec.batch.lanesPerShard * laneTokensPerStep(spec.tbptt);
  const random = randomStream(3, "segment", step, shard);
  const bytes = (values: Int32Array | Float32Array): Uint8Array => new Uint8Array(values.buffer as ArrayBuffer);
  const draw = (): Int32Array => Int32Array.from({ length: entries }, () => random.below(250));
  const tokens = draw();
  if (firstToken !== undefined) tokens[0] = firstToken;
  const labels = draw();
  const weights = Float32Array.from({ length: entries }, () => random.below(2));
  const resets = Uint8Array.from({ length: entries }, () => (random.below(20) === 0 ? 1 : 0));
  return { shard, tokens: bytes(tokens), labels: bytes(labels), weights: bytes(weights), resets };
}
