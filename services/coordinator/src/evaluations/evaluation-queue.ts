import { SegueError, type CureSpec } from "@segue/core";
import { cellJobId, evaluationId, queueNames, redisKeys, type connectRedis, type Logger } from "@segue/runtime";
import { FlowProducer, Queue } from "bullmq";
import { differences, nameTaken, type EvaluationRequest } from "./evaluation-settings.js";
import { queuedEvaluation } from "./queued-evaluation.js";

type Redis = ReturnType<typeof connectRedis>;

export interface Submitted {
  readonly evaluationId: string;
  readonly cells: number;
}

/**
 * Puts evaluations into BullMQ: one parent per evaluation and cure, one child per cell of its work, with ids that make repeats no-ops. An
 * evaluation's settings are written once and never changed.
 */
export class EvaluationQueue {
  readonly #redis: Redis;
  readonly #flows: FlowProducer;
  readonly #heatmaps: Queue;
  readonly #cells: Queue;
  #submitting: Promise<unknown> = Promise.resolve();

  /** Takes a connection of role "producer"; the caller closes it after this queue. */
  constructor(redis: Redis, logger: Logger) {
    this.#redis = redis;
    // BullMQ asks for the version once; an object whose question went unanswered would be of no use for ever.
    const options = { connection: redis, skipVersionCheck: true };
    this.#flows = new FlowProducer(options);
    this.#heatmaps = new Queue(queueNames.heatmaps, options);
    this.#cells = new Queue(queueNames.cells, options);
    const report = (error: Error): void =>
      logger.debug({ event: "evaluationQueueError", err: error }, "the evaluation queue has trouble");
    this.#flows.on("error", report);
    this.#heatmaps.on("error", report);
    this.#cells.on("error", report);
  }

  /**
   * @param retryFailed whether an evaluation that has failed is tried again
   * @returns one for each cure
   * @throws SegueError EVALUATION_NAME_TAKEN by one with other settings; EVALUATION_QUEUE_UNAVAILABLE when Redis does not answer
   */
  async submit(request: EvaluationRequest, retryFailed: boolean): Promise<Submitted[]> {
    // One after the other: what is under a name is looked at before it is written.
    const submitted = this.#submitting.then(() => this.#submitAll(request, retryFailed));
    this.#submitting = submitted.catch(() => undefined);
    return submitted;
  }

  /**
   * Whether any evaluation of a checkpoint still waits for cells, and so for its files.
   * @throws SegueError EVALUATION_QUEUE_UNAVAILABLE when Redis does not answer
   */
  async isPending(jobId: string, step: number): Promise<boolean> {
    return this.#ask(async () => {
      for (const id of await this.#redis.zrangebyscore(redisKeys.evaluations(jobId), step, step)) {
        const state = await (await this.#heatmaps.getJob(id))?.getState();
        if (state !== undefined && state !== "completed" && state !== "failed" && state !== "unknown") return true;
      }
      return false;
    });
  }

  async close(): Promise<void> {
    await Promise.allSettled([this.#flows.close(), this.#heatmaps.close(), this.#cells.close()]);
  }

  async #submitAll(request: EvaluationRequest, retryFailed: boolean): Promise<Submitted[]> {
    return this.#ask(async () => {
      const submitted: Submitted[] = [];
      for (const cure of request.evaluation.cures) submitted.push(await this.#submit(request, cure, retryFailed));
      return submitted;
    });
  }

  async #ask<T>(work: () => Promise<T>): Promise<T> {
    if (this.#redis.status !== "ready") throw unavailable();
    try {
      return await work();
    } catch (error) {
      throw error instanceof SegueError ? error : unavailable(error);
    }
  }

  async #submit(request: EvaluationRequest, cure: CureSpec, retryFailed: boolean): Promise<Submitted> {
    const { jobId, step, digest, evaluation } = request;
    const { fields, parent, cells } = queuedEvaluation(evaluation);
    const { id, known } = await this.#placeOf(request, cure);
    const submitted = { evaluationId: id, cells: cells.length };
    const differing = known ? differences(fields, known) : [];
    if (differing.length > 0) throw nameTaken(request, differing);
    if (known?.["status"] === "done" || (known?.["status"] === "failed" && !retryFailed)) return submitted;
    const key = redisKeys.evaluation(id);
    const now = Date.now();
    const cellIds = cells.map(({ part }) => cellJobId(id, part));
    if (retryFailed && (await this.#removeFailed(id, cellIds))) await this.#redis.hdel(key, "status", "reason");
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
    return submitted;
  }

  /**
   * The id of an evaluation, and what Redis has of it. A checkpoint that was written anew with other weights gets evaluations of its own,
   * beside those of the old weights.
   */
  async #placeOf({ jobId, step, digest, evaluation }: EvaluationRequest, cure: CureSpec) {
    const first = evaluationId(jobId, step, evaluation.name, cure);
    for (const id of [first, `${first}@${digest.slice(0, 16)}`]) {
      const known = await this.#redis.hgetall(redisKeys.evaluation(id));
      if (known["digest"] === undefined) return { id, known: undefined };
      if (known["digest"] === digest) return { id, known };
    }
    return { id: `${first}@${digest}`, known: undefined };
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
