import { mkdir } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { SegueError } from "@segue/core";
import { usableGpus } from "@segue/engine";
import { startPrivateRedis, type Fault, type PrivateRedis } from "@segue/runtime";
import { startFaultyLink, type FaultyLink } from "./faulty-link.js";
import { ServiceProcess, type ServiceExit, type ServiceOptions } from "./service-process.js";

export interface LocalClusterOptions {
  /** Holds `store/`, `redis/` and `logs/`. */
  readonly dir: string;
  /** @default one for each of `gpus`; 2 without a GPU */
  readonly workers?: number | undefined;
  /** Ordinals of the GPUs that the workers take in turn, and the evaluators. @default all that the engine can use */
  readonly gpus?: readonly number[] | undefined;
  /** @default 1 */
  readonly evaluators?: number;
  /** @default true */
  readonly dashboard?: boolean;
  /** A Redis to use; absent: a private one is started. */
  readonly redisUrl?: string | undefined;
  /** @default 127.0.0.1:0 */
  readonly coordinatorListen?: string;
  /** @default 127.0.0.1:0 */
  readonly dashboardListen?: string;
  /** @default `store` inside dir */
  readonly storeDir?: string;
  /** @default "auto" */
  readonly engine?: "auto" | "cuda" | "cpu" | "tfjs";
  /** Compute threads of each worker. @default the machine's cores shared out among the workers */
  readonly threads?: number;
  /** @default "info" */
  readonly logLevel?: string;
  /** Further variables for every service, for example SEGUE_HEARTBEAT_MS. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** What services shall suffer, by name: `{ "worker-1": [{ point: "worker.computing", fromStep: 12, action: "kill" }] }`. */
  readonly faults?: Readonly<Record<string, readonly Fault[]>>;
  /** Puts a {@link FaultyLink} before every worker, through which its peers and the coordinator pull its tensors. @default false */
  readonly faultyLinks?: boolean;
  /** Called when a service ends that nobody told to. */
  readonly onCrash?: (crash: ServiceCrash) => void;
}

export interface ServiceCrash {
  readonly name: string;
  readonly exit: ServiceExit;
  readonly logPath: string;
  readonly lastLogLines: string;
}

/** A coordinator's grace is that of its checkpoint, a worker's that of its round. */
const GRACE_MS = { coordinator: 60_000, worker: 30_000, evaluator: 10_000, dashboard: 5_000 } as const;

const WORKERS_WITHOUT_GPU = 2;

const KINDS = ["coordinator", "worker", "evaluator", "dashboard"] as const;

/** One address cannot serve several processes. */
const NOT_INHERITED = { SEGUE_ADVERTISE: undefined, SEGUE_METRICS_LISTEN: undefined };

/**
 * All services on this machine, each its own process. {@link close} ends them in order: first the coordinator, which commits the running
 * round and writes a checkpoint while the workers still hold the weights, then the rest, Redis last.
 * @throws SegueError NOT_BUILT, SERVICE_FAILED, GPU_NOT_FOUND, REDIS_MISSING, REDIS_FAILED; what had started by then is stopped
 */
export async function startLocalCluster(options: LocalClusterOptions): Promise<LocalCluster> {
  const cluster = await LocalCluster.create(options);
  try {
    await cluster.startAll();
    return cluster;
  } catch (error) {
    await cluster.close();
    throw error;
  }
}

export class LocalCluster {
  readonly storeDir: string;
  readonly logsDir: string;
  readonly redisUrl: string;
  readonly #options: LocalClusterOptions;
  readonly #redis: PrivateRedis | undefined;
  readonly #gpus: readonly number[];
  readonly #workers: number;
  readonly #services = new Map<string, { options: ServiceOptions; process: ServiceProcess }>();
  readonly #expectedToEnd = new Set<ServiceProcess>();
  readonly #links = new Map<string, FaultyLink>();
  #closed: Promise<void> | undefined;

  private constructor(options: LocalClusterOptions, gpus: readonly number[], redis: PrivateRedis | undefined, redisUrl: string) {
    this.#options = options;
    this.#gpus = gpus;
    this.#workers = options.workers ?? (gpus.length || WORKERS_WITHOUT_GPU);
    this.#redis = redis;
    this.redisUrl = redisUrl;
    this.storeDir = resolve(options.storeDir ?? join(options.dir, "store"));
    this.logsDir = resolve(options.dir, "logs");
  }

  /** Use {@link startLocalCluster}. */
  static async create(options: LocalClusterOptions): Promise<LocalCluster> {
    await mkdir(join(options.dir, "logs"), { recursive: true });
    const gpus = await gpusOf(options);
    if (options.redisUrl !== undefined) return new LocalCluster(options, gpus, undefined, options.redisUrl);
    const redis = await startPrivateRedis({ dir: resolve(options.dir, "redis") });
    return new LocalCluster(options, gpus, redis, redis.url);
  }

  /** host:port of the coordinator. */
  get coordinator(): string {
    return this.process("coordinator").address;
  }

  /** URL of the dashboard, undefined when there is none. */
  get dashboard(): string | undefined {
    const address = this.#services.get("dashboard")?.process.address;
    if (address === undefined) return undefined;
    return `${process.env["SEGUE_TLS_CERT"] ? "https" : "http"}://${address}/`;
  }

  /** Names of all services: "coordinator", "worker-1", "evaluator-1", "dashboard" and so on. */
  get names(): string[] {
    const byKind = (name: string): number => KINDS.indexOf(this.process(name).kind);
    return [...this.#services.keys()].sort((a, b) => byKind(a) - byKind(b) || a.localeCompare(b, "en", { numeric: true }));
  }

  /** @throws RangeError for a name that is not in {@link names} */
  process(name: string): ServiceProcess {
    const service = this.#services.get(name);
    if (!service) throw new RangeError(`the cluster has no ${name}; it has ${this.names.join(", ")}`);
    return service.process;
  }

  /** Sends a signal; for all but SIGSTOP and SIGCONT waits until the service has ended. */
  async kill(name: string, signal: NodeJS.Signals = "SIGKILL"): Promise<ServiceExit | undefined> {
    const service = this.process(name);
    const leavesItAlive = signal === "SIGSTOP" || signal === "SIGCONT";
    if (!leavesItAlive) this.#expectedToEnd.add(service);
    service.signal(signal);
    return leavesItAlive ? undefined : service.exited;
  }

  /**
   * Starts a service again that has ended, with the same name; the coordinator and the dashboard at the same address. Faults it was
   * started with are not planned again.
   */
  async restart(name: string, faults: readonly Fault[] = []): Promise<ServiceProcess> {
    const before = this.process(name);
    if (before.isRunning) throw new SegueError("SERVICE_RUNNING", `${name} is still running.`, { status: "FAILED_PRECONDITION" });
    const { options } = this.#services.get(name) ?? {};
    if (!options) throw new RangeError(`the cluster has no ${name}`);
    const failing = { ...options, env: { ...options.env, SEGUE_FAULTS: faultsText(faults) } };
    return this.#start(before.address === "" || before.kind === "worker" ? failing : listeningAt(failing, before.address));
  }

  /** One more worker. */
  addWorker(faults?: readonly Fault[]): Promise<ServiceProcess> {
    const taken = this.names.filter((name) => name.startsWith("worker-")).length;
    return this.#startWorker(taken + 1, faults);
  }

  /** Kills the private Redis and brings it back after `deadMs`. @throws RangeError when the cluster uses somebody else's */
  async killRedis(deadMs: number): Promise<void> {
    if (!this.#redis) throw new RangeError("this cluster did not start its Redis");
    await this.#redis.kill();
    await sleep(deadMs);
    await this.#redis.restart();
  }

  /** The way to a worker's tensors. @throws RangeError when the cluster has no faulty links or no such worker */
  link(worker: string): FaultyLink {
    const link = this.#links.get(worker);
    if (!link) throw new RangeError(`there is no faulty link before ${worker}`);
    return link;
  }

  /** @internal */
  async startAll(): Promise<void> {
    const { coordinatorListen = "127.0.0.1:0", dashboardListen = "127.0.0.1:0", evaluators = 1 } = this.#options;
    await this.#startService("coordinator", "coordinator", { SEGUE_LISTEN: coordinatorListen, SEGUE_STORE: this.storeDir });
    const starts = [
      ...Array.from({ length: this.#workers }, (_, index) => this.#startWorker(index + 1)),
      ...Array.from({ length: evaluators }, (_, index) => this.#startEvaluator(index + 1)),
    ];
    if (this.#options.dashboard ?? true) {
      starts.push(this.#startService("dashboard", "dashboard", { SEGUE_LISTEN: dashboardListen }));
    }
    // Wait for all before failing, so that close() knows every process there is.
    const results = await Promise.allSettled(starts);
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }

  /** Ends everything in order; with `now`, at once. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  /** Kills every service without waiting for its good end. */
  killAll(): void {
    for (const { process } of this.#services.values()) {
      this.#expectedToEnd.add(process);
      process.signal("SIGKILL");
    }
  }

  async #close(): Promise<void> {
    const running = [...this.#services.values()].map(({ process }) => process);
    for (const process of running) this.#expectedToEnd.add(process);
    const stop = (kind: ServiceProcess["kind"]): Promise<unknown> =>
      Promise.all(running.filter((process) => process.kind === kind).map((process) => process.stop(GRACE_MS[kind])));
    await stop("coordinator");
    await Promise.all([stop("worker"), stop("evaluator"), stop("dashboard")]);
    await Promise.all(Array.from(this.#links.values(), (link) => link.close()));
    await this.#redis?.close();
  }

  async #startWorker(number: number, faults?: readonly Fault[]): Promise<ServiceProcess> {
    const { threads = Math.max(1, Math.floor(availableParallelism() / this.#workers)), engine = "auto" } = this.#options;
    const name = `worker-${number}`;
    const link = this.#options.faultyLinks === true ? await startFaultyLink() : undefined;
    if (link) this.#links.set(name, link);
    return this.#startService("worker", name, {
      SEGUE_LISTEN: link?.target ?? "127.0.0.1:0",
      ...(link ? { SEGUE_ADVERTISE: link.address } : {}),
      ...(faults ? { SEGUE_FAULTS: faultsText(faults) } : {}),
      SEGUE_COORDINATOR: this.coordinator,
      SEGUE_NAME: name,
      SEGUE_ENGINE: engine,
      SEGUE_GPU: this.#gpuOf(number),
      SEGUE_THREADS: String(threads),
    });
  }

  #startEvaluator(number: number): Promise<ServiceProcess> {
    const { engine = "auto" } = this.#options;
    const name = `evaluator-${number}`;
    return this.#startService("evaluator", name, {
      SEGUE_COORDINATOR: this.coordinator,
      SEGUE_NAME: name,
      SEGUE_ENGINE: engine,
      SEGUE_GPU: this.#gpuOf(number),
      // It works beside the training on the same cores.
      SEGUE_THREADS: "1",
    });
  }

  /** More workers than GPUs share them in turn. */
  #gpuOf(number: number): string {
    return String(this.#gpus[(number - 1) % this.#gpus.length] ?? 0);
  }

  #startService(kind: ServiceProcess["kind"], name: string, env: Record<string, string>): Promise<ServiceProcess> {
    const { logLevel = "info" } = this.#options;
    return this.#start({
      kind,
      name,
      logPath: join(this.logsDir, `${name}.log`),
      env: {
        ...NOT_INHERITED,
        SEGUE_LOG_LEVEL: logLevel,
        SEGUE_FAULTS: faultsText(this.#options.faults?.[name] ?? []),
        ...this.#options.env,
        ...env,
        REDIS_URL: this.redisUrl,
      },
    });
  }

  async #start(options: ServiceOptions): Promise<ServiceProcess> {
    const process = await ServiceProcess.start(options);
    if (this.#closed !== undefined) {
      // It was being started (again) when the cluster was closed, which does not know of it.
      await process.stop(GRACE_MS[options.kind]);
      return process;
    }
    this.#services.set(options.name, { options, process });
    void process.exited.then((exit) => this.#ended(process, exit));
    return process;
  }

  async #ended(process: ServiceProcess, exit: ServiceExit): Promise<void> {
    if (this.#expectedToEnd.has(process)) return;
    const { name, logPath } = process;
    this.#options.onCrash?.({ name, exit, logPath, lastLogLines: await process.lastLogLines() });
  }
}

async function gpusOf({ gpus, engine = "auto" }: LocalClusterOptions): Promise<readonly number[]> {
  const usable = engine === "auto" || engine === "cuda" ? await usableGpus() : 0;
  const missing = gpus?.find((ordinal) => ordinal >= usable);
  if (missing === undefined) return gpus ?? Array.from({ length: usable }, (_, ordinal) => ordinal);
  const message = `There is no GPU ${missing} for the engine ${engine}, which can use ${usable} here (counted from 0).`;
  throw new SegueError("GPU_NOT_FOUND", message, { status: "FAILED_PRECONDITION" });
}

function faultsText(faults: readonly Fault[]): string {
  return faults.length === 0 ? "" : JSON.stringify(faults);
}

function listeningAt(options: ServiceOptions, address: string): ServiceOptions {
  return { ...options, env: { ...options.env, SEGUE_LISTEN: address } };
}
