import { packedStateBytes } from "../state/pack-states.js";
import type { EffectiveRemembranceSpec, EvaluationSpec, LossByPositionSpec, ModelSpec, StateStatisticsSpec } from "./job-spec.js";
import type { Refuse } from "./refuse.js";
import { LIMITS } from "./schema.js";

/** The rules of the kinds that read long prompts. @param field the evaluation's */
export function checkLongPrompts(
  { lossByPosition, stateStatistics, effectiveRemembrance }: EvaluationSpec,
  model: ModelSpec,
  field: string,
  refuse: Refuse,
): void {
  if (lossByPosition) checkLossByPosition(lossByPosition, `${field}.lossByPosition`, refuse);
  if (stateStatistics) checkStateStatistics(stateStatistics, model, `${field}.stateStatistics`, refuse);
  if (effectiveRemembrance) checkEffectiveRemembrance(effectiveRemembrance, `${field}.effectiveRemembrance`, refuse);
}

function checkPrompts(
  { prompt, prompts = 1, tokens }: { prompt: string; prompts?: number; tokens: number },
  field: string,
  refuse: Refuse,
): void {
  refuse(
    prompt === "newlines" && prompts > 1,
    `${field}.prompts`,
    `must be 1 for newlines, which are always the same prompt, but is ${prompts}`,
    `${field}.prompt`,
  );
  refuse(
    prompt === "corpus" && tokens > LIMITS.corpusTokens,
    `${field}.tokens`,
    `must be at most ${LIMITS.corpusTokens} of the corpus, but is ${tokens}`,
    `${field}.prompt`,
  );
}

function checkLossByPosition(loss: LossByPositionSpec, field: string, refuse: Refuse): void {
  const { tokens, bucketTokens, trainTokens } = loss;
  const sizes = [`${field}.tokens`, `${field}.bucketTokens`];
  refuse(
    tokens % bucketTokens !== 0,
    `${field}.tokens`,
    `must be a multiple of bucketTokens, ${bucketTokens}, but is ${tokens}`,
    ...sizes,
  );
  refuse(
    tokens / bucketTokens > LIMITS.bucketsPerCurve,
    `${field}.bucketTokens`,
    `must be larger: ${tokens} tokens have more than ${LIMITS.bucketsPerCurve} buckets of ${bucketTokens}`,
    ...sizes,
  );
  refuse(
    trainTokens < bucketTokens,
    `${field}.trainTokens`,
    `must hold a bucket of ${bucketTokens} tokens to compare the others with, but is ${trainTokens}`,
    ...sizes,
  );
  checkPrompts(loss, field, refuse);
}

function checkStateStatistics(statistics: StateStatisticsSpec, model: ModelSpec, field: string, refuse: Refuse): void {
  const { tokens, everyTokens, histogramTokens } = statistics;
  const beyond = histogramTokens.find((place) => place > tokens);
  refuse(
    beyond !== undefined,
    `${field}.histogramTokens`,
    `must lie within the ${tokens} tokens, but one is ${beyond ?? ""}`,
    `${field}.tokens`,
  );
  const bytes = packedStateBytes(model, Math.ceil(tokens / everyTokens), histogramTokens.length);
  refuse(
    bytes > LIMITS.stateStatisticsBytes,
    `${field}.everyTokens`,
    `must be larger, or tokens and histogramTokens less: their statistics would take ${bytes} bytes, more than ${LIMITS.stateStatisticsBytes}`,
    `${field}.tokens`,
    `${field}.histogramTokens`,
  );
  checkPrompts(statistics, field, refuse);
}

function checkEffectiveRemembrance(remembrance: EffectiveRemembranceSpec, field: string, refuse: Refuse): void {
  const { tokens, starts } = remembrance;
  const beyond = starts.find((start) => start >= tokens);
  refuse(
    beyond !== undefined,
    `${field}.starts`,
    `must be less than tokens, ${tokens}, but one is ${beyond ?? ""}`,
    `${field}.tokens`,
  );
  const repeated = starts.find((start, at) => starts.indexOf(start) !== at);
  refuse(repeated !== undefined, `${field}.starts`, `holds ${repeated ?? ""} twice; remove one`);
  checkPrompts(remembrance, field, refuse);
}
