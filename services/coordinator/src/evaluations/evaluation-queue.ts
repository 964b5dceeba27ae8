import { SegueError, type CureSpec, type EvaluationSpec } from "@segue/core";
import { cellJobId, evaluationId, queueNames, redisKeys, type connectRedis, type Logger } from "@segue/runtime";
import { FlowProducer, Queue } from "bullmq";
import { queuedEvaluation } from "./queued-evaluation.js";

type Redis = ReturnType<typeof connectRedis>;

export interface EvaluationRequest {
  readonly jobId: string;
  readonly step: number;
  /** Of the checkpoint. */
  readonly digest: string;
  readonly evaluation: EvaluationSpec;
}

export interface Submitted {
  readonly evaluationId: string;
  readonly cells: number;
}

/**
 * Puts evaluations into BullMQ: one parent per evaluation and cure, one child per cell of its work, with ids that make repeats no-ops. One
 * that failed is tried again when it is asked for again.
 */
export class EvaluationQueue {
  readonly #redis: Redis;
  readonly #flows: FlowProducer;
  readonly #heatmaps: Queue;
  readonly #cells: Queue;

  /** Takes a connection of role "producer"; the caller closes it after this queue. */
  constructor(redis: Redis, logger: Logger) {
    this.#redis = redis;
    this.#flows = new FlowProducer({ connection: redis });
    this.#heatmaps = new Queue(queueNames.heatmaps, { connection: redis });
    this.#cells = new Queue(queueNames.cells, { connection: redis });
    const report = (error: Error): void =>
      logger.debug({ event: "evaluationQueueError", err: error }, "the evaluation queue has trouble");
    this.#flows.on("error", report);
    this.#heatmaps.on("error", report);
    this.#cells.on("error", report);
  }

  /** @returns one for each cure; @throws SegueError EVALUATION_QUEUE_UNAVAILABLE when Redis is away */
  async submit(request: EvaluationRequest): Promise<Submitted[]> {
    if (this.#redis.status !== "ready") throw unavailable();
    try {
      const submitted: Submitted[] = [];
      for (const cure of request.evaluation.cures) submitted.push(await this.#submit(request, cure));
      return submitted;
    } catch (error) {
      throw unavailable(error);
    }
  }

  /** Whether any heat map of a checkpoint still waits for cells, and so for its files. False when Redis is away. */
  async isPending(jobId: string, step: number): Promise<boolean> {
    if (this.#redis.status !== "ready") return false;
    const ids = await this.#redis.zrangebyscore(redisKeys.evaluations(jobId), step, step).catch(() => []);
    const pending = ids.map(async (id) => {
      const job = await this.#heatmaps.getJob(id).catch(() => undefined);
      const state = await job?.getState().catch(() => undefined);
      return state !== undefined && state !== "completed" && state !== "failed" && state !== "unknown";
    });
    return (await Promise.all(pending)).includes(true);
  }

  async close(): Promise<void> {
    await Promise.allSettled([this.#flows.close(), this.#heatmaps.close(), this.#cells.close()]);
  }

  async #submit({ jobId, step, digest, evaluation }: EvaluationRequest, cure: CureSpec): Promise<Submitted> {
    const id = evaluationId(jobId, step, evaluation.name, cure);
    const { fields, parent, cells } = queuedEvaluation(evaluation);
    const key = redisKeys.evaluation(id);
    const now = Date.now();
    const cellIds = cells.map(({ part }) => cellJobId(id, part));
    if (await this.#removeFailed(id, cellIds)) await this.#redis.hdel(key, "status", "reason");
    await this.#redis
      .multi()
      .hset(key, {
        jobId,
        step,
        name: evaluation.name,
        digest,
        ...fields,
        cure: JSON.stringify(cure),
        cells: cells.length,
        updatedAtMs: now,
      })
      .hsetnx(key, "status", "queued")
      .hsetnx(key, "createdAtMs", now)
      .zadd(redisKeys.evaluations(jobId), step, id)
      .publish(redisKeys.events, jobId)
      .exec();
    const shared = { jobId, step, digest, evaluationId: id };
    const cured = cure.kind === "none" ? shared : { ...shared, cure };
    await this.#flows.add({
      name: "heatmap",
      queueName: queueNames.heatmaps,
      data: { ...shared, ...parent },
      opts: { jobId: id },
      children: cells.map(({ part, work }) => ({
        name: "cell",
        queueName: queueNames.cells,
        data: { ...cured, ...work },
        opts: {
          jobId: cellJobId(id, part),
          attempts: 3,
          backoff: { type: "exponential", delay: 1_000 },
          failParentOnFailure: true,
        },
      })),
    });
    return { evaluationId: id, cells: cells.length };
  }

  /** BullMQ adds no job whose id it knows, and it never forgets those that failed. @returns whether the heat map had failed */
  async #removeFailed(id: string, cellIds: readonly string[]): Promise<boolean> {
    const heatmap = await this.#heatmaps.getJob(id);
    if (!heatmap || !(await heatmap.isFailed())) return false;
    // Cells that are complete or still wait stay and become the new heat map's.
    await heatmap.remove({ removeChildren: false });
    for (const cellId of cellIds) {
      const cell = await this.#cells.getJob(cellId);
      if (cell && (await cell.isFailed())) await cell.remove();
    }
    return true;
  }
}

function unavailable(cause?: unknown): SegueError {
  return new SegueError("EVALUATION_QUEUE_UNAVAILABLE", "Evaluations need Redis, which does not answer; set REDIS_URL.", {
    status: "UNAVAILABLE",
    retryable: true,
    cause,
  });
}
