import type { CollapseVerdict, CureSpec, LossCurve } from "@segue/core";
import { cureOf, numberOrZero, objectOrEmpty, parsedJson } from "./redis-values.js";

/** An evaluation of loss by position as Redis has it (docs/reference/redis.md). */
export interface LossRecord extends LossCurve {
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
  readonly tokens: number;
  readonly prompt: string;
  readonly prompts: number;
  readonly trainTokens: number;
  readonly collapseFactor: number;
  /** Null until it is done; `losses` is empty until then. */
  readonly collapse: CollapseVerdict | null;
}

/** Never throws, whatever the hash holds. */
export function parseLossRecord(evaluationId: string, hash: Readonly<Record<string, string>>): LossRecord {
  const text = (name: string): string => hash[name] ?? "";
  const number = (name: string): number => numberOrZero(hash[name]);
  const losses = parsedJson(hash["losses"]);
  const collapse = objectOrEmpty(parsedJson(hash["collapse"]));
  return {
    ...{ evaluationId, jobId: text("jobId"), step: number("step"), name: text("name"), digest: text("digest") },
    ...{ cure: cureOf(hash["cure"]), status: text("status"), reason: text("reason") },
    ...{ tokens: number("tokens"), prompt: text("prompt"), prompts: number("prompts") },
    ...{ trainTokens: number("trainTokens"), collapseFactor: number("collapseFactor"), bucketTokens: number("bucketTokens") },
    losses: Array.isArray(losses) ? losses.map((loss) => (typeof loss === "number" ? loss : null)) : [],
    collapse: "collapsed" in collapse ? (collapse as unknown as CollapseVerdict) : null,
  };
}
