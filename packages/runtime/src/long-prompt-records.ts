import type { StateSummary } from "@segue/core";
import { evaluationHead, type EvaluationHead, type Hash } from "./evaluation-head.js";
import { numberList, numberOrZero, numbersOrNull, objectOrEmpty, parsedJson } from "./redis-values.js";

/** What evaluations over long prompts say of themselves in Redis (docs/reference/redis.md). */
interface LongPromptRecord extends EvaluationHead {
  readonly tokens: number;
  readonly prompt: string;
  readonly seed: number;
}

export interface StatesRecord extends LongPromptRecord {
  readonly everyTokens: number;
  readonly histogramTokens: readonly number[];
  readonly trainTokens: number;
  /** Null until it is done. */
  readonly summary: StateSummary | null;
  /** Where the packed statistics are (docs/reference/state-statistics.md); empty until it is done. */
  readonly fileKey: string;
}

export interface RemembranceRecord extends LongPromptRecord {
  readonly prompts: number;
  readonly starts: readonly number[];
  /** For each start; null where it is no finite number, empty until it is done. */
  readonly distances: readonly (number | null)[];
}

/** Never throws, whatever the hash holds. */
export function parseStatesRecord(evaluationId: string, hash: Hash): StatesRecord {
  const summary = objectOrEmpty(parsedJson(hash["summary"]));
  return {
    ...longPromptRecord(evaluationId, hash),
    everyTokens: numberOrZero(hash["everyTokens"]),
    histogramTokens: numberList(parsedJson(hash["histogramTokens"])),
    trainTokens: numberOrZero(hash["trainTokens"]),
    summary: "samples" in summary ? (summary as unknown as StateSummary) : null,
    fileKey: hash["fileKey"] ?? "",
  };
}

/** Never throws, whatever the hash holds. */
export function parseRemembranceRecord(evaluationId: string, hash: Hash): RemembranceRecord {
  return {
    ...longPromptRecord(evaluationId, hash),
    prompts: numberOrZero(hash["prompts"]),
    starts: numberList(parsedJson(hash["starts"])),
    distances: numbersOrNull(parsedJson(hash["distances"])),
  };
}

function longPromptRecord(evaluationId: string, hash: Hash): LongPromptRecord {
  return {
    ...evaluationHead(evaluationId, hash),
    ...{ tokens: numberOrZero(hash["tokens"]), prompt: hash["prompt"] ?? "", seed: numberOrZero(hash["seed"]) },
  };
}
