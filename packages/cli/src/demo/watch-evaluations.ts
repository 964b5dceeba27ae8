import { setTimeout as sleep } from "node:timers/promises";
import { redisKeys, type connectRedis } from "@segue/runtime";
import { isComplete, readEvaluation, type EvaluationResult } from "../evaluation/read-evaluation.js";

const POLL_MS = 500;

/** Calls back once for each evaluation of a job as it is complete, until the signal aborts. */
export async function watchEvaluations(
  redis: ReturnType<typeof connectRedis>,
  jobId: string,
  signal: AbortSignal,
  onComplete: (result: EvaluationResult) => void,
): Promise<void> {
  const seen = new Set<string>();
  while (!signal.aborted) {
    for (const id of await redis.zrange(redisKeys.evaluations(jobId), "0", "-1")) {
      if (seen.has(id)) continue;
      const result = await readEvaluation(redis, id);
      if (!result || !isComplete(result)) continue;
      seen.add(id);
      onComplete(result);
    }
    await sleep(POLL_MS, undefined, { signal }).catch(() => undefined);
  }
}
