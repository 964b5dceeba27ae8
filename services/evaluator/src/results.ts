import { redisKeys, type connectRedis } from "@segue/runtime";
import type { PasskeyCell, PasskeyCellResult } from "./cell.js";

type Redis = ReturnType<typeof connectRedis>;

const RESULT_SECONDS = 30 * 24 * 3600;

/** Writes what an evaluation has found so far. Writing a cell twice is harmless: the same work has the same result. */
export class EvaluationResults {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  /** What the same cell gave before, for whichever evaluation. */
  async known(cell: PasskeyCell): Promise<PasskeyCellResult | undefined> {
    const text = await this.#redis.get(redisKeys.cellResult(cell));
    return text === null ? undefined : (JSON.parse(text) as PasskeyCellResult);
  }

  async cell(cell: PasskeyCell, result: PasskeyCellResult): Promise<void> {
    const { length, depth, ...found } = result;
    const { evaluationId, jobId } = cell;
    const key = redisKeys.evaluation(evaluationId);
    // A cell that runs a second time, after a stall, may come when its heat map is closed: it must not open it again.
    const status = await this.#redis.hget(key, "status");
    const isClosed = status === "done" || status === "failed";
    await this.#redis
      .multi()
      .set(redisKeys.cellResult(cell), JSON.stringify(result), "EX", RESULT_SECONDS)
      .hset(redisKeys.cells(evaluationId), `${length}:${depth}`, JSON.stringify(found))
      .hset(key, { ...(isClosed ? {} : { status: "running" }), updatedAtMs: Date.now() })
      .publish(redisKeys.events, jobId)
      .exec();
  }

  /** The whole heat map, from the cells' own results, and its mean accuracy. */
  async done(evaluationId: string, jobId: string, results: readonly PasskeyCellResult[]): Promise<number> {
    const cells = Object.fromEntries(
      results.map(({ length, depth, ...found }) => [`${length}:${depth}`, JSON.stringify(found)] as const),
    );
    const accuracy = results.reduce((sum, { correct, samples }) => sum + correct / samples, 0) / Math.max(1, results.length);
    const transaction = this.#redis.multi();
    if (results.length > 0) transaction.hset(redisKeys.cells(evaluationId), cells);
    await transaction
      .hset(redisKeys.evaluation(evaluationId), { status: "done", accuracy, updatedAtMs: Date.now() })
      .publish(redisKeys.events, jobId)
      .exec();
    return accuracy;
  }

  async failed(evaluationId: string, jobId: string, reason: string): Promise<void> {
    await this.#redis
      .multi()
      .hset(redisKeys.evaluation(evaluationId), { status: "failed", reason, updatedAtMs: Date.now() })
      .publish(redisKeys.events, jobId)
      .exec();
  }
}
