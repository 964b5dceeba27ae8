import { redisKeys, type connectRedis } from "@segue/runtime";
import type { Cell, CellResult, Closing, Outcome } from "./tasks/task.js";
import { taskOf } from "./tasks/tasks.js";

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
    const text = await this.#redis.get(resultKey(cell));
    if (text === null) return undefined;
    const result = JSON.parse(text) as CellResult;
    const isWhole = result.fileKey === undefined || (await this.#redis.exists(result.fileKey)) === 1;
    return isWhole ? result : undefined;
  }

  /** @returns the result as it is kept: its file under a key of its own */
  async cell(cell: Cell, { file, ...found }: CellResult): Promise<CellResult> {
    const fileKey = file ? fileKeyOf(cell) : found.fileKey;
    const result = fileKey === undefined ? found : { ...found, fileKey };
    if (file && fileKey !== undefined) await this.#redis.set(fileKey, Buffer.from(file), "EX", RESULT_SECONDS);
    // Those who ask for it again keep it as long as what they ask for.
    else if (fileKey !== undefined) await this.#redis.expire(fileKey, RESULT_SECONDS);
    await this.#write(cell, result);
    return result;
  }

  async #write(cell: Cell, result: CellResult): Promise<void> {
    const { evaluationId, jobId } = cell;
    const key = redisKeys.evaluation(evaluationId);
    const { name, found } = taskOf(cell).field(result);
    // A cell that runs a second time, after a stall, may come when its evaluation is closed: it must not open it again.
    const status = await this.#redis.hget(key, "status");
    const isClosed = status === "done" || status === "failed";
    await this.#redis
      .multi()
      .set(resultKey(cell), JSON.stringify(result), "EX", RESULT_SECONDS)
      .hset(redisKeys.cells(evaluationId), name, JSON.stringify(found))
      .hset(key, { ...(isClosed ? {} : { status: "running" }), updatedAtMs: Date.now() })
      .publish(redisKeys.events, jobId)
      .exec();
  }

  /** All cells, from their own results, and what they come to. */
  async done(closing: Closing, results: readonly CellResult[], outcome: Outcome): Promise<void> {
    const { evaluationId, jobId } = closing;
    const fields = results.map((result) => taskOf(closing).field(result));
    const cells = Object.fromEntries(fields.map(({ name, found }) => [name, JSON.stringify(found)] as const));
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

function resultKey(cell: Cell): string {
  return redisKeys.cellResult(cell.digest, taskOf(cell).work(cell), cell.cure);
}

function fileKeyOf(cell: Cell): string {
  return redisKeys.cellFile(cell.digest, taskOf(cell).work(cell), cell.cure);
}
