import { setTimeout as sleep } from "node:timers/promises";
import { redisKeys, type connectRedis } from "@segue/runtime";
import { isComplete, readEvaluation, type EvaluationResult } from "../evaluation/read-evaluation.js";

const POLL_MS = 500;

/** The evaluations of a job that are complete, in order of step. */
export async function completeEvaluations(redis: ReturnType<typeof connectRedis>, jobId: string): Promise<EvaluationResult[]> {
  const ids = await redis.zrange(redisKeys.evaluations(jobId), "0", "-1");
  const results = await Promise.all(ids.map((id) => readEvaluation(redis, id)));
  return results.flatMap((result) => (result && isComplete(result) ? [result] : [])).sort((a, b) => a.step - b.step);
}

/** Calls back once for each evaluation of a job as it is complete, until the signal aborts. */
export async function watchEvaluations(
  redis: ReturnType<typeof connectRedis>,
  jobId: string,
  signal: AbortSignal,
  onComplete: (result: EvaluationResult) => void,
): Promise<void> {
  const seen = new Set<string>();
  while (!signal.aborted) {
    for (const result of await completeEvaluations(redis, jobId)) {
      if (seen.has(result.evaluationId)) continue;
      seen.add(result.evaluationId);
      onComplete(result);
    }
    await sleep(POLL_MS, undefined, { signal }).catch(() => undefined);
  }
}
