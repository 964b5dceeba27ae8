import type { CollapseVerdict, LossCurve } from "@segue/core";
import { numberOrZero, objectOrEmpty, parsedJson, redisKeys, type connectRedis } from "@segue/runtime";

type Redis = ReturnType<typeof connectRedis>;

/** An evaluation of loss by position as far as it is known. */
export interface LossResult extends LossCurve {
  readonly evaluationId: string;
  readonly jobId: string;
  readonly step: number;
  readonly name: string;
  readonly digest: string;
  readonly status: string;
  /** Why it failed; else empty. */
  readonly reason: string;
  readonly prompt: string;
  readonly prompts: number;
  readonly trainTokens: number;
  readonly collapseFactor: number;
  readonly cellsDone: number;
  /** Null until it is done; `losses` is empty until then. */
  readonly collapse: CollapseVerdict | null;
}

/** What Redis knows of it (docs/reference/redis.md); undefined when nothing. */
export async function readLoss(redis: Redis, evaluationId: string): Promise<LossResult | undefined> {
  const [fields, cellsDone] = await Promise.all([
    redis.hgetall(redisKeys.evaluation(evaluationId)),
    redis.hlen(redisKeys.cells(evaluationId)),
  ]);
  return fields["jobId"] === undefined ? undefined : parseLoss(evaluationId, fields, cellsDone);
}

export function parseLoss(evaluationId: string, fields: Readonly<Record<string, string>>, cellsDone: number): LossResult {
  const text = (name: string): string => fields[name] ?? "";
  const number = (name: string): number => numberOrZero(fields[name]);
  const losses = parsedJson(fields["losses"]);
  const collapse = objectOrEmpty(parsedJson(fields["collapse"]));
  return {
    ...{ evaluationId, jobId: text("jobId"), step: number("step"), name: text("name"), digest: text("digest") },
    ...{ status: text("status"), reason: text("reason"), prompt: text("prompt"), prompts: number("prompts") },
    ...{ trainTokens: number("trainTokens"), collapseFactor: number("collapseFactor"), cellsDone },
    bucketTokens: number("bucketTokens"),
    losses: Array.isArray(losses) ? losses.map((loss) => (typeof loss === "number" ? loss : null)) : [],
    collapse: "collapsed" in collapse ? (collapse as unknown as CollapseVerdict) : null,
  };
}
