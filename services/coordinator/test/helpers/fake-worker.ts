import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { laneStateFloats, parameterLayout, validateJobSpec } from "@segue/core";
import {
  pullTensor,
  TensorRegistry,
  Tensors,
  tensorsHandlers,
  Workers,
  type AttachRequestSchema,
  type Join,
  type RunRound,
  type Segments,
  type Tensor,
} from "@segue/protocol";
import { BlockDigest, connectClient, createLogger, jobSpecInputFromProto, startGrpcServer } from "@segue/runtime";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { AsyncQueue } from "../../src/async-queue.js";

export interface FakeWorkerOptions {
  readonly coordinator: string;
  readonly name: string;
  readonly stepMs?: number;
  /** Time it takes to begin to serve weights and moments. */
  readonly modelMs?: number;
  /** Spoils this worker's weights in steps for which it is true, so that digests differ. */
  readonly wrong?: (step: number) => boolean;
  /** What it says a step took it to compute. */
  readonly computeMs?: number;
  /** Loss sum of every shard at a step, in place of the right one. */
  readonly lossSum?: (step: number) => number | undefined;
  readonly engines?: string[];
  /** Of its machine. @default more than any job needs */
  readonly memoryBytes?: number;
  /** Name of its GPU. */
  readonly gpu?: string;
  /** Told before every step, which waits for it. */
  readonly onStep?: (step: number, jobId: string) => void | Promise<void>;
  /** Fails whenever it is to join, with this. */
  readonly failsToJoin?: { readonly code: string; readonly message: string };
}

/** The longest that a server takes. */
const MAX_WAIT_MS = 60_000;

interface Replica {
  readonly model: Float32Array;
  readonly states: Map<number, Float32Array>;
}

type Request = MessageInitShape<typeof AttachRequestSchema>;
export type FakeWorker = Awaited<ReturnType<typeof startFakeWorker>>;

const bytesOf = (floats: Float32Array): Uint8Array => new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
const floatsOf = (bytes: Uint8Array): Float32Array => new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);

async function weightsDigestOf(weights: Uint8Array): Promise<string> {
  const digest = new BlockDigest(weights.byteLength);
  await digest.update(weights);
  return digest.soFar();
}

/** Speaks the worker's protocol over real gRPC with whole-number "gradients", whose sums are exact in any order. */
export async function startFakeWorker(options: FakeWorkerOptions) {
  const { gpu } = options;
  const gpuLoad = gpu === undefined ? {} : { gpuLoad: { memoryUsedBytes: 2n ** 30n, utilisationPercent: 50 } };
  const registry = new TensorRegistry();
  const logger = createLogger("fake-worker", "silent");
  const models = new Map<string, Tensor>();
  const slowModel = async (ref: string): Promise<Tensor | undefined> => {
    if (options.modelMs && ref.endsWith("/model")) await sleep(options.modelMs);
    return models.get(ref);
  };
  const server = await startGrpcServer({
    listen: "127.0.0.1:0",
    services: [{ service: Tensors, handlers: tensorsHandlers(registry, slowModel) }],
    logger,
  });
  const client = connectClient(Workers, options.coordinator);
  const requests = new AsyncQueue<Request>();
  const abort = new AbortController();
  const snapshots = new Map<number, Replica>();
  const segments = new Map<number, Segments>();
  let job: Join | undefined;
  let replica: Replica | undefined;
  let beat: NodeJS.Timeout | undefined;
  const log: string[] = [];

  const send = (message: NonNullable<Request["message"]>): void => requests.push({ message });
  const pull = async (address: string, ref: string): Promise<Float32Array> => {
    const peer = connectClient(Tensors, address);
    try {
      return floatsOf((await pullTensor(peer, ref, { waitMs: MAX_WAIT_MS, signal: abort.signal })).data);
    } finally {
      peer.close();
    }
  };
  const isCurrent = (generation: number): boolean => job?.generation === generation && !abort.signal.aborted;
  const specOf = ({ spec }: Join) => validateJobSpec(spec && jobSpecInputFromProto(spec)).spec;
  const shardsOf = ({ members }: Join): number[] => members.find(({ workerId }) => workerId === id)?.shards ?? [];
  let id = "";

  function offer(step: number, { model, states }: Replica): void {
    snapshots.set(step, { model: model.slice(), states: new Map([...states].map(([shard, state]) => [shard, state.slice()])) });
    for (const old of snapshots.keys()) if (snapshots.size > 2 && old !== step) drop(old);
    const ref = `job/${job?.jobId}/snapshot/${step}`;
    registry.removePrefix(`${ref}/`);
    models.set(`${ref}/model`, { dtype: "f32", shape: [3, model.length / 3], data: bytesOf(model.slice()) });
    for (const [shard, state] of states) {
      registry.publish(`${ref}/states/${shard}`, { dtype: "f32", shape: [state.length], data: bytesOf(state.slice()) });
    }
  }

  function drop(step: number): void {
    snapshots.delete(step);
    registry.removePrefix(`job/${job?.jobId}/snapshot/${step}/`);
    models.delete(`job/${job?.jobId}/snapshot/${step}/model`);
  }

  async function join(message: Join): Promise<void> {
    job = message;
    segments.clear();
    if (options.failsToJoin) {
      const { jobId, generation } = message;
      log.push(`failed ${generation}`);
      return send({ case: "failure", value: { jobId, generation, ...options.failsToJoin, peerWorkerId: "" } });
    }
    const spec = specOf(message);
    const size = parameterLayout(spec.model).size;
    const own = snapshots.get(message.step);
    const states = new Map<number, Float32Array>();
    for (const shard of shardsOf(message)) {
      const ref = `job/${message.jobId}/snapshot/${message.step}/states/${shard}`;
      const zero = new Float32Array(spec.batch.lanesPerShard * laneStateFloats(spec.model));
      states.set(shard, own?.states.get(shard)?.slice() ?? (message.step === 0 ? zero : await pull(message.statesAddress, ref)));
    }
    const ref = `job/${message.jobId}/snapshot/${message.step}/model`;
    const model =
      own?.model.slice() ?? (message.step === 0 ? new Float32Array(3 * size).fill(1) : await pull(message.weightsAddress, ref));
    if (!isCurrent(message.generation)) return;
    if (message.step > 0) {
      const weights = bytesOf(model.subarray(0, size));
      const ofFirstKind = createHash("sha256").update(weights).digest("hex");
      if (![await weightsDigestOf(weights), ofFirstKind].includes(message.weightsDigest))
        throw new Error("pulled weights have another digest");
    }
    replica = { model, states };
    offer(message.step, replica);
    const { jobId, generation, step } = message;
    log.push(`ready ${generation} ${step}`);
    send({ case: "ready", value: { jobId, generation, step, parameters: BigInt(size), engine: "fake" } });
  }

  async function runRound({ jobId, generation, firstStep, steps }: RunRound): Promise<void> {
    if (!job || !replica || !isCurrent(generation)) return;
    for (const step of snapshots.keys()) if (step < firstStep) drop(step);
    const size = replica.model.length / 3;
    const results = [];
    for (let step = firstStep; step < firstStep + steps; step++) {
      await options.onStep?.(step, jobId);
      if (options.stepMs) await sleep(options.stepMs);
      if (!isCurrent(generation)) return;
      const cut = segments.get(step);
      if (!cut) throw new Error(`no segments for step ${step}`);
      const shardLossSums = [];
      const sum = new Float32Array(size);
      for (const { shard, tokens } of cut.shards) {
        const state = replica.states.get(shard)!;
        const total = new Int32Array(tokens.slice().buffer).reduce((a, b) => a + b, 0);
        for (let i = 0; i < state.length; i++) state[i] = Math.fround((state[i]! * 3 + total) % 1009);
        for (let i = 0; i < size; i++) sum[i]! += (total + state[i % state.length]! + i) % 101;
        shardLossSums.push(options.lossSum?.(step) ?? total);
      }
      const node = (shards: readonly number[]): string =>
        `job/${jobId}/gen/${generation}/step/${step}/node/${shards[0]}-${shards.at(-1)! + 1}`;
      registry.publish(node(shardsOf(job)), { dtype: "f32", shape: [size], data: bytesOf(sum.slice()) });
      for (const { workerId, tensorsAddress, shards } of job.members) {
        if (workerId === id) continue;
        let part: Float32Array;
        try {
          part = await pull(tensorsAddress, node(shards));
        } catch (error) {
          const message = error instanceof Error ? error.message : "";
          send({ case: "failure", value: { jobId, generation, code: "PEER_LOST", message, peerWorkerId: workerId } });
          return;
        }
        for (let i = 0; i < size; i++) sum[i]! += part[i]!;
      }
      if (!isCurrent(generation)) return;
      const isWrong = options.wrong?.(step) ?? false;
      for (let i = 0; i < size; i++) {
        const { model } = replica;
        model[i] = Math.fround(model[i]! * 0.5 + sum[i]! + (isWrong ? 1 : 0));
        model[size + i] = Math.fround(model[size + i]! * 0.25 + sum[i]!);
        model[2 * size + i] = sum[i]!;
      }
      results.push({ step, shardLossSums, gradientNorm: 1, learningRate: 0.1, computeMs: options.computeMs ?? 1, exchangeMs: 1 });
    }
    offer(firstStep + steps, replica);
    const weightsDigest = await weightsDigestOf(bytesOf(replica.model.slice(0, size)));
    log.push(`done ${generation} ${firstStep}+${steps}`);
    send({ case: "roundDone", value: { jobId, generation, firstStep, steps, results, weightsDigest } });
  }

  async function receive(): Promise<void> {
    let work: Promise<unknown> = Promise.resolve();
    for await (const { message } of client.attach(requests, { signal: abort.signal })) {
      switch (message.case) {
        case "welcome":
          id = message.value.workerId;
          beat = setInterval(
            () => send({ case: "heartbeat", value: { rssBytes: 1n, step: 0, ...gpuLoad } }),
            message.value.heartbeatMs,
          );
          break;
        case "join": {
          const { value } = message;
          job = value;
          work = join(value).catch((error: unknown) => log.push(`join failed: ${String(error)}`));
          break;
        }
        case "segments":
          segments.set(message.value.step, message.value);
          break;
        case "runRound": {
          const { value } = message;
          work = work.then(() => runRound(value)).catch((error: unknown) => log.push(`round failed: ${String(error)}`));
          break;
        }
        case "withdraw":
          if (job?.generation === message.value.generation) job = { ...job, generation: -1 };
          log.push("withdrawn");
          break;
        case "release":
          log.push("released");
          job = undefined;
          snapshots.clear();
          models.clear();
          registry.removePrefix("job/");
          break;
        case "pulse":
        case undefined:
          break;
      }
    }
  }

  send({
    case: "hello",
    value: {
      name: options.name,
      tensorsAddress: server.address,
      engines: options.engines ?? ["cpu"],
      device: `fake device of ${options.name}`,
      memoryBytes: BigInt(options.memoryBytes ?? 2 ** 40),
      threads: 1,
      version: "test",
      ...(gpu === undefined ? {} : { gpu: { name: gpu, uuid: `GPU-${options.name}`, memoryBytes: 8n * 2n ** 30n, ordinal: 0 } }),
    },
  });
  const over = receive().catch(() => undefined);
  return {
    log,
    /** As the coordinator calls it. */
    get id(): string {
      return id;
    },
    drain: () => send({ case: "draining", value: { reason: "test" } }),
    /** Falls silent without ending its stream. */
    mute: () => clearInterval(beat),
    /** Dies: its stream and its tensors are gone at once. */
    async kill(): Promise<void> {
      abort.abort();
      clearInterval(beat);
      requests.close();
      await server.close(0);
      await over;
      client.close();
      registry.close();
    },
  };
}
