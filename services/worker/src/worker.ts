import { hostname } from "node:os";
import { availableParallelism } from "node:os";
import type { GpuDescription } from "@segue/engine";
import {
  TensorRegistry,
  Tensors,
  tensorsHandlers,
  type AttachResponse,
  type GpuLoadSchema,
  type GpuSchema,
  type MessageInitShape,
} from "@segue/protocol";
import { hostOf, startGrpcServer, type GrpcServer, type Logger, type Security } from "@segue/runtime";
import type { AttachMessage } from "./attach/attach-message.js";
import { Attachment } from "./attach/attachment.js";
import type { EngineChoice } from "./compute/calls.js";
import { defaultComputeModule } from "./compute/compute-thread.js";
import { probeDevices, type Devices } from "./devices.js";
import { GpuWatch } from "./gpu/gpu-watch.js";
import { hostId } from "./host-id.js";
import { JobReplica } from "./job/replica.js";
import { machineMemoryBytes } from "./machine-memory.js";
import { PullCounter } from "./tensors/pull-counter.js";

export interface WorkerOptions {
  readonly name: string;
  readonly version: string;
  /** host:port of the worker's Tensors service; port 0 takes a free one. */
  readonly listen: string;
  /** host:port under which others reach it. @default where it listens */
  readonly advertise?: string | undefined;
  readonly coordinator: string;
  readonly security: Security;
  readonly engine: EngineChoice;
  /** Compute threads; 0: as many as there are cores. */
  readonly threads: number;
  /** Ordinal of its GPU among the visible ones. @default 0 */
  readonly gpu?: number | undefined;
  /** What there is to compute with. @default what {@link probeDevices} finds */
  readonly devices?: Devices | undefined;
  /** Path of NCCL's library, if the loader does not find it. */
  readonly ncclLibrary?: string | undefined;
  /** Path of NVML's library. @default by the loader's path */
  readonly nvmlLibrary?: string | undefined;
  readonly logger: Logger;
  /** Memory that jobs must fit into. @default that of the machine or container */
  readonly memoryBytes?: number | undefined;
  /** Of a page of weights and moments; only tests want it small. */
  readonly pageFloats?: number | undefined;
  /** Module of the compute thread. @default the one with Segue's engines */
  readonly computeModule?: URL | undefined;
}

/** Peers pull several small tensors per step; only members of the cluster come here. */
const TENSORS_RATE = { perSecond: 1e6, burst: 1e6 };
const CLOSE_MS = 1_000;

/** A running worker: attached to its coordinator, or trying to be. */
export class Worker {
  readonly #options: WorkerOptions;
  readonly #devices: Devices;
  readonly #gpuWatch: GpuWatch | undefined;
  readonly #registry = new TensorRegistry();
  readonly #pulls = new PullCounter();
  readonly #replicas = new Map<string, JobReplica>();
  readonly #idle = new Set<() => void>();
  #server: GrpcServer | undefined;
  #attachment: Attachment | undefined;
  #workerId = "";
  #drainReason: string | undefined;

  private constructor(options: WorkerOptions, devices: Devices, gpuWatch: GpuWatch | undefined) {
    this.#options = options;
    this.#devices = devices;
    this.#gpuWatch = gpuWatch;
  }

  /**
   * Starts the Tensors service and begins to attach.
   * @throws SegueError ENGINE_UNAVAILABLE when no engine loads, or what startGrpcServer throws
   */
  static async start(options: WorkerOptions): Promise<Worker> {
    const devices = options.devices ?? (await probeDevices({ ...options, gpu: options.gpu ?? 0 }));
    const watch = devices.gpu && (await GpuWatch.start(devices.gpu.uuid, options.nvmlLibrary));
    const worker = new Worker(options, devices, watch);
    try {
      await worker.#listen();
      return worker;
    } catch (error) {
      await worker.close();
      throw error;
    }
  }

  get #memoryBytes(): number {
    return this.#options.memoryBytes ?? machineMemoryBytes();
  }

  /** host:port under which others reach its tensors. */
  get address(): string {
    const listening = this.#server?.address ?? "";
    // Where it listens on every address, peers know this machine (or pod, or container) by its name.
    const reachable = ["0.0.0.0", "::"].includes(hostOf(listening)) ? `${hostname()}:${listening.split(":").at(-1)}` : listening;
    return this.#options.advertise ?? reachable;
  }

  /** Ends when the worker is closed; rejects when the coordinator refuses it for good. */
  get done(): Promise<void> {
    return this.#attachment?.done ?? Promise.resolve();
  }

  /** Asks to leave and goes on working until every job is released, the coordinator is away, or `deadlineMs` is over. */
  async drain(reason: string, deadlineMs: number): Promise<void> {
    this.#drainReason = reason;
    this.#attachment?.send({ case: "draining", value: { reason } });
    if (this.#replicas.size === 0 || !this.#attachment?.attached) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, deadlineMs);
      this.#idle.add(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#attachment?.close();
    await Promise.all(Array.from(this.#replicas.values(), (replica) => replica.close()));
    this.#replicas.clear();
    this.#registry.close();
    this.#gpuWatch?.close();
    await this.#server?.close(CLOSE_MS);
  }

  async #listen(): Promise<void> {
    const { listen, security, logger, coordinator } = this.#options;
    const handlers = this.#pulls.counting(tensorsHandlers(this.#registry));
    const services = [{ service: Tensors, handlers }] as const;
    this.#server = await startGrpcServer({ listen, ...security, services, logger, rateLimit: TENSORS_RATE });
    this.#attachment = new Attachment({
      coordinator,
      security,
      logger,
      hello: () => this.#hello(),
      heartbeat: () => this.#heartbeat(),
      onWelcome: ({ workerId }) => {
        this.#workerId = workerId;
        logger.info({ workerId, coordinator }, "attached");
        if (this.#drainReason !== undefined) this.#attachment?.send({ case: "draining", value: { reason: this.#drainReason } });
      },
      onMessage: (message) => this.#handle(message),
      onLost: () => {
        for (const replica of this.#replicas.values()) replica.detach();
        // Nobody is left who could release the jobs.
        if (this.#drainReason !== undefined) this.#becomeIdle();
      },
    });
  }

  #handle(message: AttachResponse["message"]): void {
    switch (message.case) {
      case "join":
        this.#replica(message.value.jobId).join(message.value, this.#workerId);
        return;
      case "segments":
        this.#replicas.get(message.value.jobId)?.segments(message.value);
        return;
      case "runRound":
        this.#replicas.get(message.value.jobId)?.runRound(message.value);
        return;
      case "withdraw":
        this.#replicas.get(message.value.jobId)?.withdraw(message.value);
        return;
      case "release":
        this.#release(message.value.jobId);
        return;
      case "welcome":
      case "pulse":
      case undefined:
        return;
    }
  }

  #replica(jobId: string): JobReplica {
    let replica = this.#replicas.get(jobId);
    if (!replica) {
      const {
        engine,
        threads,
        gpu,
        ncclLibrary,
        pageFloats,
        logger,
        security,
        computeModule = defaultComputeModule,
      } = this.#options;
      replica = new JobReplica(jobId, {
        computeModule,
        registry: this.#registry,
        pulls: this.#pulls,
        security,
        engine,
        bestEngine: this.#devices.engines[0]?.name ?? "",
        threads,
        gpu,
        memoryBytes: this.#memoryBytes,
        ncclLibrary,
        pageFloats,
        logger,
        report: (message) => this.#attachment?.send(message),
      });
      this.#replicas.set(jobId, replica);
    }
    return replica;
  }

  #release(jobId: string): void {
    const replica = this.#replicas.get(jobId);
    this.#replicas.delete(jobId);
    replica?.close().catch((error: unknown) => this.#options.logger.error({ jobId, err: error }, "release_failed"));
    if (this.#replicas.size === 0) this.#becomeIdle();
  }

  #becomeIdle(): void {
    for (const resolve of this.#idle) resolve();
    this.#idle.clear();
  }

  #hello(): AttachMessage {
    const { name, version, threads } = this.#options;
    const { engines, gpu, ncclVersion } = this.#devices;
    return {
      case: "hello",
      value: {
        name,
        version,
        tensorsAddress: this.address,
        engines: engines.map((offer) => offer.name),
        device: engines[0]?.detail ?? "",
        memoryBytes: BigInt(this.#memoryBytes),
        threads: threads === 0 ? availableParallelism() : threads,
        ...(gpu ? { gpu: this.#gpuMessage(gpu) } : {}),
        hostId: hostId(),
        ncclVersion,
      },
    };
  }

  #heartbeat(): AttachMessage {
    const nowMs = Date.now();
    const sentAt = { seconds: BigInt(Math.floor(nowMs / 1000)), nanos: (nowMs % 1000) * 1e6 };
    const step = Math.max(0, ...Array.from(this.#replicas.values(), (replica) => replica.computingStep));
    const gpuLoad = this.#gpuLoad;
    return {
      case: "heartbeat",
      value: { sentAt, rssBytes: BigInt(process.memoryUsage.rss()), step, ...(gpuLoad ? { gpuLoad } : {}) },
    };
  }

  #gpuMessage({ name, uuid, memoryBytes, ordinal }: GpuDescription): MessageInitShape<typeof GpuSchema> {
    return { name, uuid, memoryBytes: BigInt(memoryBytes), ordinal, driverVersion: this.#gpuWatch?.driverVersion ?? "" };
  }

  get #gpuLoad(): MessageInitShape<typeof GpuLoadSchema> | undefined {
    const sample = this.#gpuWatch?.latest;
    if (!sample) return undefined;
    const { memoryUsedBytes, utilisation: utilisationPercent, temperatureCelsius } = sample;
    return {
      ...(memoryUsedBytes === undefined ? {} : { memoryUsedBytes: BigInt(memoryUsedBytes) }),
      ...(utilisationPercent === undefined ? {} : { utilisationPercent }),
      ...(temperatureCelsius === undefined ? {} : { temperatureCelsius }),
    };
  }
}
