import { filledCure } from "../cures/cure-settings.js";
import { remembranceStarts } from "../position/effective-remembrance.js";
import {
  DEFAULT_EFFECTIVE_REMEMBRANCE,
  DEFAULT_EVALUATION,
  DEFAULT_LOSS_BY_POSITION,
  DEFAULT_STATE_STATISTICS,
} from "./defaults.js";
import { fill } from "./fill.js";
import type {
  EffectiveRemembranceSpec,
  EvaluationSpec,
  LossByPositionSpec,
  PasskeyEvaluationSpec,
  StateStatisticsSpec,
  TbpttSpec,
} from "./job-spec.js";
import type { JobSpecInput } from "./schema.js";
import { trainingLength } from "./tbptt-stages.js";

type EvaluationInput = NonNullable<JobSpecInput["evaluations"]>[number];

/** An evaluation with its defaults, some of which follow the length of the job's training. */
export function fillEvaluation(input: EvaluationInput, tbptt: TbpttSpec): EvaluationSpec {
  const { passkey, lossByPosition, stateStatistics, effectiveRemembrance, cures, ...rest } = input;
  const trainTokens = lossByPosition?.trainTokens ?? stateStatistics?.trainTokens ?? trainingLength(tbptt);
  const always = {
    everyCheckpoints: DEFAULT_EVALUATION.everyCheckpoints,
    cures: cures?.map((cure) => filledCure(cure, trainTokens)) ?? DEFAULT_EVALUATION.cures,
  };
  const named = (name: string): EvaluationSpec => fill<EvaluationSpec>({ name, ...always }, rest);
  if (lossByPosition) {
    const { name, ...defaults } = DEFAULT_LOSS_BY_POSITION;
    const bucketTokens = Math.min(defaults.bucketTokens, 2 ** Math.floor(Math.log2(trainTokens)));
    return { ...named(name), lossByPosition: fill<LossByPositionSpec>({ ...defaults, trainTokens, bucketTokens }, lossByPosition) };
  }
  if (stateStatistics) {
    const { name, ...defaults } = DEFAULT_STATE_STATISTICS;
    const tokens = stateStatistics.tokens ?? defaults.tokens;
    const histogramTokens = [...new Set([Math.ceil(tokens / 4), tokens])];
    const filled = fill<StateStatisticsSpec>({ ...defaults, trainTokens, histogramTokens }, stateStatistics);
    return { ...named(name), stateStatistics: filled };
  }
  if (effectiveRemembrance) {
    const { name, ...defaults } = DEFAULT_EFFECTIVE_REMEMBRANCE;
    const starts = remembranceStarts(effectiveRemembrance.tokens ?? defaults.tokens);
    const filled = fill<EffectiveRemembranceSpec>({ ...defaults, starts }, effectiveRemembrance);
    return { ...named(name), effectiveRemembrance: filled };
  }
  return { ...named(DEFAULT_EVALUATION.name), passkey: fill<PasskeyEvaluationSpec>(DEFAULT_EVALUATION.passkey, passkey) };
}
