import { redisKeys, type connectRedis } from "@segue/runtime";

/** What Redis knows of an evaluation (docs/reference/redis.md), and how many of its cells are done; undefined when nothing. */
export async function readRecord<R extends object>(
  redis: ReturnType<typeof connectRedis>,
  evaluationId: string,
  parse: (evaluationId: string, hash: Record<string, string>) => R,
): Promise<(R & { readonly cellsDone: number }) | undefined> {
  const [hash, cellsDone] = await Promise.all([
    redis.hgetall(redisKeys.evaluation(evaluationId)),
    redis.hlen(redisKeys.cells(evaluationId)),
  ]);
  return hash["jobId"] === undefined ? undefined : { ...parse(evaluationId, hash), cellsDone };
}
