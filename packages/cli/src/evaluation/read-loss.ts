import { parseLossRecord, redisKeys, type connectRedis, type LossRecord } from "@segue/runtime";

type Redis = ReturnType<typeof connectRedis>;

/** An evaluation of loss by position as far as it is known. */
export interface LossResult extends LossRecord {
  readonly cellsDone: number;
}

/** What Redis knows of it (docs/reference/redis.md); undefined when nothing. */
export async function readLoss(redis: Redis, evaluationId: string): Promise<LossResult | undefined> {
  const [fields, cellsDone] = await Promise.all([
    redis.hgetall(redisKeys.evaluation(evaluationId)),
    redis.hlen(redisKeys.cells(evaluationId)),
  ]);
  return fields["jobId"] === undefined ? undefined : { ...parseLossRecord(evaluationId, fields), cellsDone };
}
