import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onePage, validateJobSpec, type CureSpec } from "@segue/core";
import { initialParameters, writeModelFolder } from "@segue/engine";
import { TensorRegistry, Tensors, tensorsHandlers, type Client } from "@segue/protocol";
import {
  cellJobId,
  connectClient,
  connectRedis,
  createLogger,
  evaluationId,
  queueNames,
  redisKeys,
  startGrpcServer,
  startPrivateRedis,
  type GrpcServer,
  type PrivateRedis,
} from "@segue/runtime";
import { FlowProducer, Queue } from "bullmq";
import { until } from "../../../test/helpers/patience.js";
import type { LossCell } from "../src/tasks/loss-by-position.js";
import type { PasskeyCell, PasskeyCellResult } from "../src/tasks/passkey.js";

export const logger = createLogger("test", "silent");

export const { spec } = validateJobSpec({
  name: "tiny",
  model: { layers: 1, dModel: 16, headDim: 8, dState: 8, chunk: 16 },
  data: { passkey: { documentTokens: 512 } },
  tbptt: { segmentTokens: 64 },
  batch: { shards: 1, lanesPerShard: 1 },
  train: { steps: 1 },
});

export type StoredCell = Omit<PasskeyCellResult, "length" | "depth">;

export interface StoredEvaluation {
  readonly status: string;
  readonly fields: Readonly<Record<string, string>>;
  readonly cells: Readonly<Record<string, StoredCell | undefined>>;
}

export type CellWork = Pick<PasskeyCell, "length" | "depth">;

/** What an evaluator meets: a Redis, the coordinator's Tensors service with checkpoints, and the queues filled as the coordinator does. */
export class TestCluster {
  private constructor(
    readonly dir: string,
    readonly privateRedis: PrivateRedis,
    readonly redis: ReturnType<typeof connectRedis>,
    readonly registry: TensorRegistry,
    readonly server: GrpcServer,
    readonly tensors: Client<typeof Tensors>,
    readonly flows: FlowProducer,
    readonly cells: Queue,
    readonly heatmaps: Queue,
  ) {}

  static async start(): Promise<TestCluster> {
    const dir = await mkdtemp(join(tmpdir(), "segue-evaluator-test-"));
    const privateRedis = await startPrivateRedis({ dir: join(dir, "redis") });
    const redis = connectRedis(privateRedis.url, { logger, role: "worker" });
    const registry = new TensorRegistry();
    const handlers = tensorsHandlers(registry);
    const server = await startGrpcServer({ listen: "127.0.0.1:0", services: [{ service: Tensors, handlers }], logger });
    const tensors = connectClient(Tensors, server.address);
    const options = { connection: redis };
    const [cells, heatmaps] = [new Queue(queueNames.cells, options), new Queue(queueNames.heatmaps, options)];
    return new TestCluster(dir, privateRedis, redis, registry, server, tensors, new FlowProducer(options), cells, heatmaps);
  }

  /** Publishes a checkpoint with weights drawn from the seed. @returns its digest */
  async publishCheckpoint(
    jobId: string,
    step: number,
    seed: number,
    changes: { digest?: string; damage?: boolean } = {},
  ): Promise<string> {
    const folder = await mkdtemp(join(this.dir, "checkpoint-"));
    await writeModelFolder(folder, { model: spec.model, parameters: onePage(initialParameters(spec.model, seed)) }, 0);
    const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
    const files: Record<string, { bytes: number; sha256: string }> = {};
    const digest = changes.digest ?? sha256(Buffer.from(`${jobId} ${step} ${seed}`));
    const publish = (name: string, data: Uint8Array): void =>
      this.registry.publish(`job/${jobId}/checkpoint/${step}/${name}`, { dtype: "u8", shape: [data.byteLength], data });
    for (const name of await readdir(folder)) {
      const data = await readFile(join(folder, name));
      files[name] = { bytes: data.byteLength, sha256: sha256(changes.damage ? Buffer.concat([data, Buffer.from("x")]) : data) };
      publish(name, data);
    }
    publish("manifest.json", Buffer.from(JSON.stringify({ format: 1, jobId, step, digest, spec, files })));
    return digest;
  }

  /** Queues a heat map as the coordinator does. @returns the evaluation's id */
  async enqueue(options: {
    jobId: string;
    step: number;
    digest: string;
    name?: string;
    cells: CellWork[];
    samples?: number;
  }): Promise<string> {
    const { jobId, step, digest, cells } = options;
    const id = evaluationId(jobId, step, options.name ?? "passkey");
    const settings = { samples: options.samples ?? 3, digits: 5, seed: 1, template: "paper", carryState: true } as const;
    const shared = { jobId, step, digest, evaluationId: id };
    await this.redis.hset(redisKeys.evaluation(id), { ...shared, status: "queued" });
    await this.flows.add({
      name: "heatmap",
      queueName: queueNames.heatmaps,
      data: shared,
      opts: { jobId: id },
      children: cells.map((cell) => ({
        name: "cell",
        queueName: queueNames.cells,
        data: { ...shared, ...cell, ...settings },
        opts: {
          jobId: cellJobId(id, `len-${cell.length}_depth-${cell.depth}`),
          attempts: 3,
          backoff: { type: "exponential", delay: 50 },
          failParentOnFailure: true,
        },
      })),
    });
    return id;
  }

  /** Queues an evaluation of loss by position as the coordinator does. @returns its id */
  async enqueueLoss(options: {
    jobId: string;
    step: number;
    digest: string;
    settings: Pick<LossCell, "tokens" | "bucketTokens" | "prompt" | "seed">;
    parts: Pick<LossCell, "firstPrompt" | "prompts">[];
    cure?: CureSpec;
  }): Promise<string> {
    const { jobId, step, digest, settings, parts, cure } = options;
    const id = evaluationId(jobId, step, "loss", cure);
    const task = "lossByPosition";
    const ids = { task, jobId, step, digest, evaluationId: id };
    const shared = { ...ids, ...(cure && { cure }) };
    await this.redis.hset(redisKeys.evaluation(id), { ...ids, status: "queued" });
    await this.flows.add({
      name: "heatmap",
      queueName: queueNames.heatmaps,
      data: { ...shared, bucketTokens: settings.bucketTokens, trainTokens: 256, collapseFactor: 2 },
      opts: { jobId: id },
      children: parts.map((part) => ({
        name: "cell",
        queueName: queueNames.cells,
        data: { ...shared, ...settings, ...part },
        opts: { jobId: cellJobId(id, `prompts-${part.firstPrompt}-${part.prompts}`), failParentOnFailure: true },
      })),
    });
    return id;
  }

  /** Queues an evaluation of one cell as the coordinator does. @returns its id */
  async enqueueOne(options: {
    jobId: string;
    step: number;
    digest: string;
    name: string;
    work: { task: string };
  }): Promise<string> {
    const { jobId, step, digest, name, work } = options;
    const evaluationId = `${jobId}_${step}_${name}`;
    const shared = { jobId, step, digest, evaluationId };
    await this.redis.hset(redisKeys.evaluation(evaluationId), { ...shared, kind: work.task, status: "queued" });
    await this.flows.add({
      name: "heatmap",
      queueName: queueNames.heatmaps,
      data: { ...shared, task: work.task },
      opts: { jobId: evaluationId },
      children: [
        {
          name: "cell",
          queueName: queueNames.cells,
          data: { ...shared, ...work },
          opts: { jobId: cellJobId(evaluationId, "one"), failParentOnFailure: true },
        },
      ],
    });
    return evaluationId;
  }

  async evaluation(evaluationId: string): Promise<StoredEvaluation> {
    const [fields, cells] = await Promise.all([
      this.redis.hgetall(redisKeys.evaluation(evaluationId)),
      this.redis.hgetall(redisKeys.cells(evaluationId)),
    ]);
    const parsed = Object.fromEntries(Object.entries(cells).map(([field, value]) => [field, JSON.parse(value) as StoredCell]));
    return { status: fields["status"] ?? "", fields, cells: parsed };
  }

  async untilStatus(evaluationId: string, status: string): Promise<StoredEvaluation> {
    return until(async () => {
      const evaluation = await this.evaluation(evaluationId);
      return evaluation.status === status ? evaluation : undefined;
    }, `${evaluationId} to be ${status}`);
  }

  async close(): Promise<void> {
    await Promise.all([this.flows.close(), this.cells.close(), this.heatmaps.close()]);
    this.tensors.close();
    this.registry.close();
    await this.server.close(1_000);
    this.redis.disconnect();
    await this.privateRedis.close();
    await rm(this.dir, { recursive: true, force: true });
  }
}
