import { redisKeys, type connectRedis } from "@segue/runtime";
import { isLossResult, type Cell, type CellResult } from "./cell.js";
import type { Closing, Outcome } from "./closing.js";

type Redis = ReturnType<typeof connectRedis>;

const RESULT_SECONDS = 30 * 24 * 3600;

/** Writes what an evaluation has found so far. Writing a cell twice is harmless: the same work has the same result. */
export class EvaluationResults {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  /** What the same cell gave before, for whichever evaluation. */
  async known(cell: Cell): Promise<CellResult | undefined> {
    const text = await this.#redis.get(redisKeys.cellResult(cell));
    return text === null ? undefined : (JSON.parse(text) as CellResult);
  }

  async cell(cell: Cell, result: CellResult): Promise<void> {
    const { evaluationId, jobId } = cell;
    const key = redisKeys.evaluation(evaluationId);
    const { field, found } = cellField(result);
    // A cell that runs a second time, after a stall, may come when its evaluation is closed: it must not open it again.
    const status = await this.#redis.hget(key, "status");
    const isClosed = status === "done" || status === "failed";
    await this.#redis
      .multi()
      .set(redisKeys.cellResult(cell), JSON.stringify(result), "EX", RESULT_SECONDS)
      .hset(redisKeys.cells(evaluationId), field, found)
      .hset(key, { ...(isClosed ? {} : { status: "running" }), updatedAtMs: Date.now() })
      .publish(redisKeys.events, jobId)
      .exec();
  }

  /** All cells, from their own results, and what they come to. */
  async done({ evaluationId, jobId }: Closing, results: readonly CellResult[], outcome: Outcome): Promise<void> {
    const cells = Object.fromEntries(results.map(cellField).map(({ field, found }) => [field, found] as const));
    const transaction = this.#redis.multi();
    if (results.length > 0) transaction.hset(redisKeys.cells(evaluationId), cells);
    await transaction
      .hset(redisKeys.evaluation(evaluationId), { status: "done", ...outcome.fields, updatedAtMs: Date.now() })
      .publish(redisKeys.events, jobId)
      .exec();
  }

  async failed(evaluationId: string, jobId: string, reason: string): Promise<void> {
    await this.#redis
      .multi()
      .hset(redisKeys.evaluation(evaluationId), { status: "failed", reason, updatedAtMs: Date.now() })
      .publish(redisKeys.events, jobId)
      .exec();
  }
}

/** A cell's name within its evaluation, and what it found as JSON. */
function cellField(result: CellResult): { field: string; found: string } {
  if (isLossResult(result)) {
    const { firstPrompt, prompts, ...found } = result;
    return { field: `prompts:${firstPrompt}:${prompts}`, found: JSON.stringify(found) };
  }
  const { length, depth, ...found } = result;
  return { field: `${length}:${depth}`, found: JSON.stringify(found) };
}
