import type { CureSpec, StateSummary } from "@segue/core";
import { cureOf, numberList, numberOrZero, objectOrEmpty, parsedJson } from "./redis-values.js";

type Hash = Readonly<Record<string, string>>;

/** What evaluations over long prompts say of themselves in Redis (docs/reference/redis.md). */
interface LongPromptRecord {
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
  const distances = parsedJson(hash["distances"]);
  return {
    ...longPromptRecord(evaluationId, hash),
    prompts: numberOrZero(hash["prompts"]),
    starts: numberList(parsedJson(hash["starts"])),
    distances: Array.isArray(distances) ? distances.map((distance) => (typeof distance === "number" ? distance : null)) : [],
  };
}

function longPromptRecord(evaluationId: string, hash: Hash): LongPromptRecord {
  const text = (name: string): string => hash[name] ?? "";
  return {
    ...{ evaluationId, jobId: text("jobId"), step: numberOrZero(hash["step"]), name: text("name"), digest: text("digest") },
    ...{ cure: cureOf(hash["cure"]), status: text("status"), reason: text("reason") },
    ...{ tokens: numberOrZero(hash["tokens"]), prompt: text("prompt"), seed: numberOrZero(hash["seed"]) },
  };
}
