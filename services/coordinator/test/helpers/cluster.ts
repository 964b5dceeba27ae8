import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startCoordinator, type Coordinator, type CoordinatorOptions } from "@segue/coordinator";
import { JobPhase, Jobs, type Job } from "@segue/protocol";
import { connectClient, createLogger } from "@segue/runtime";
import { PATIENCE_MS, until } from "../../../../test/helpers/patience.js";
import { fakeData } from "./fake-data.js";
import { startFakeWorker, type FakeWorker, type FakeWorkerOptions } from "./fake-worker.js";

export const SPEC = `
name: tiny
model: { layers: 1, dModel: 16, dState: 4, headDim: 8, chunk: 4, vocab: 256 }
data: { passkey: { documentTokens: 512, digits: 2 } }
tbptt: { segmentTokens: 8 }
batch: { shards: 4, lanesPerShard: 2 }
train: { steps: 24 }
rounds: { targetMs: 20, maxSteps: 5 }
checkpoints: { everySteps: 6, keepLast: 2 }
`;

export interface TestClusterOptions
  extends
    Pick<CoordinatorOptions, "redis" | "checkpoints" | "s3Endpoint" | "checkpointsTimeoutMs">,
    Partial<Pick<CoordinatorOptions, "data">> {
  /** @default fails the test */
  readonly onStoreLost?: (error: Error) => void;
  /** Folder in which the store's own is made. */
  readonly parent?: string;
}

/** A coordinator on a temporary store, fake workers, and a client; everything is closed by `close`. */
export class TestCluster {
  readonly #closers: (() => Promise<unknown>)[] = [];
  readonly store: string;
  /** Of the coordinator, from its next start on. */
  options: TestClusterOptions;
  #names = 0;
  #coordinator: Coordinator | undefined;
  #client: ReturnType<typeof connectClient<typeof Jobs>> | undefined;

  private constructor(store: string, options: TestClusterOptions) {
    this.store = store;
    this.options = options;
  }

  static async start(options: TestClusterOptions = {}): Promise<TestCluster> {
    const store = await mkdtemp(join(options.parent ?? tmpdir(), "segue-coordinator-"));
    const cluster = new TestCluster(store, options);
    await cluster.startCoordinator();
    return cluster;
  }

  /** How a job ends on one worker and a coordinator of its own, if nothing happens to them. */
  static async undisturbedDigest(spec = SPEC): Promise<string> {
    const alone = await TestCluster.start();
    try {
      await alone.worker();
      return await alone.digest(await alone.submit(spec));
    } finally {
      await alone.close();
    }
  }

  get address(): string {
    return this.#coordinator?.address ?? "";
  }

  get jobs() {
    this.#client ??= connectClient(Jobs, this.address);
    return this.#client;
  }

  async startCoordinator(): Promise<void> {
    this.#coordinator = await startCoordinator({
      listen: "127.0.0.1:0",
      store: this.store,
      heartbeatMs: 100,
      data: fakeData,
      security: {},
      logger: createLogger("coordinator", process.env["TEST_LOG"] ?? "silent"),
      onStoreLost: (error) => {
        throw error;
      },
      ...this.options,
    });
  }

  async stopCoordinator(): Promise<void> {
    this.#client?.close();
    this.#client = undefined;
    await this.#coordinator?.close();
  }

  async worker(options: Partial<FakeWorkerOptions> = {}): Promise<FakeWorker> {
    const worker = await startFakeWorker({ coordinator: this.address, name: `w${this.#names++}`, ...options });
    this.#closers.push(() => worker.kill());
    return worker;
  }

  async untilAttached(count: number): Promise<void> {
    await until(async () => (await this.jobs.listWorkers({})).workers.length === count, `${count} workers`);
  }

  async submit(yaml = SPEC): Promise<string> {
    const { job } = await this.jobs.submitJob({ source: { case: "yaml", value: yaml } });
    return job!.jobId;
  }

  /** The first version of the job for which `condition` holds. */
  async until(jobId: string, condition: (job: Job) => boolean): Promise<Job> {
    const updates = this.jobs.watchJob({ jobId }, { deadlineMs: PATIENCE_MS });
    for await (const { job } of updates) if (job && condition(job)) return job;
    const { job } = await this.jobs.getJob({ jobId });
    throw new Error(`the job ended ${JobPhase[job!.phase]}: ${job!.reason}`);
  }

  /** Digest of the last checkpoint of a job that succeeds. */
  async digest(jobId: string): Promise<string> {
    await this.until(jobId, ({ phase }) => phase === JobPhase.SUCCEEDED);
    const { checkpoints } = await this.jobs.listCheckpoints({ jobId });
    return checkpoints[0]!.digest;
  }

  async close(): Promise<void> {
    await Promise.all(this.#closers.map((close) => close()));
    await this.stopCoordinator();
    await rm(this.store, { recursive: true });
  }
}
