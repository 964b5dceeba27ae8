import type { CureSpec } from "@segue/core";
import { cureOf, numberOrZero } from "./redis-values.js";

export type Hash = Readonly<Record<string, string>>;

/** What every evaluation says of itself in Redis (docs/reference/redis.md). */
export interface EvaluationHead {
  readonly evaluationId: string;
  readonly jobId: string;
  readonly step: number;
  readonly name: string;
  readonly digest: string;
  readonly cure: CureSpec;
  /** queued, running, done or failed. */
  readonly status: string;
  /** Why it failed; else empty. */
  readonly reason: string;
}

/** Never throws, whatever the hash holds. */
export function evaluationHead(evaluationId: string, hash: Hash): EvaluationHead {
  const text = (name: string): string => hash[name] ?? "";
  return {
    ...{ evaluationId, jobId: text("jobId"), step: numberOrZero(hash["step"]), name: text("name"), digest: text("digest") },
    ...{ cure: cureOf(hash["cure"]), status: text("status"), reason: text("reason") },
  };
}
