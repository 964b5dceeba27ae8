import type { CollapseVerdict, LossCurve } from "@segue/core";
import { evaluationHead, type EvaluationHead, type Hash } from "./evaluation-head.js";
import { numberOrZero, numbersOrNull, objectOrEmpty, parsedJson } from "./redis-values.js";

/** An evaluation of loss by position as Redis has it (docs/reference/redis.md). */
export interface LossRecord extends EvaluationHead, LossCurve {
  readonly tokens: number;
  readonly prompt: string;
  readonly prompts: number;
  readonly trainTokens: number;
  readonly collapseFactor: number;
  /** Null until it is done; `losses` is empty until then. */
  readonly collapse: CollapseVerdict | null;
}

/** Never throws, whatever the hash holds. */
export function parseLossRecord(evaluationId: string, hash: Hash): LossRecord {
  const number = (name: string): number => numberOrZero(hash[name]);
  const collapse = objectOrEmpty(parsedJson(hash["collapse"]));
  return {
    ...evaluationHead(evaluationId, hash),
    ...{ tokens: number("tokens"), prompt: hash["prompt"] ?? "", prompts: number("prompts") },
    ...{ trainTokens: number("trainTokens"), collapseFactor: number("collapseFactor"), bucketTokens: number("bucketTokens") },
    losses: numbersOrNull(parsedJson(hash["losses"])),
    collapse: "collapsed" in collapse ? (collapse as unknown as CollapseVerdict) : null,
  };
}
