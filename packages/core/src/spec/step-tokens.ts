import type { BatchSpec, TbpttSpec } from "./job-spec.js";
import { tbpttAt, tbpttStages } from "./tbptt-stages.js";

type Segments = Pick<TbpttSpec, "segmentTokens" | "segmentsPerStep">;
type Staged = Segments & Pick<TbpttSpec, "curriculum">;

interface Shape {
  readonly batch: BatchSpec;
  readonly tbptt: Staged;
}

/** Tokens of one lane that one optimizer step consumes under these settings; see {@link tbpttAt} for those of a step. */
export function laneTokensPerStep({ segmentTokens, segmentsPerStep }: Segments): number {
  return segmentTokens * segmentsPerStep;
}

/** Tokens of one lane that the largest step consumes. */
export function mostLaneTokensPerStep(tbptt: Staged): number {
  return Math.max(...tbpttStages(tbptt).map(laneTokensPerStep));
}

/** Tokens of all lanes that one optimizer step (0-based) consumes. */
export function tokensPerStep({ batch, tbptt }: Shape, step = 0): number {
  return lanesOf(batch) * laneTokensPerStep(tbpttAt(tbptt, step));
}

/** Tokens of all lanes that the steps before `step` consume. */
export function tokensBefore({ batch, tbptt }: Shape, step: number): number {
  return lanesOf(batch) * before(tbptt, step, laneTokensPerStep);
}

/** Segments of one lane that the steps before `step` consume. */
export function segmentsBefore(tbptt: Staged, step: number): number {
  return before(tbptt, step, ({ segmentsPerStep }) => segmentsPerStep);
}

/** The fewest steps that consume `tokens` tokens. */
export function stepsForTokens(shape: Shape, tokens: number): number {
  const stages = tbpttStages(shape.tbptt);
  const last = stages.findLast(({ fromStep }) => tokensBefore(shape, fromStep) < tokens) ?? stages[0];
  const left = Math.max(0, tokens - tokensBefore(shape, last.fromStep));
  return last.fromStep + Math.ceil(left / (lanesOf(shape.batch) * laneTokensPerStep(last)));
}

/** What each step before `step` comes to, added up. */
function before(tbptt: Staged, step: number, ofStep: (settings: Segments) => number): number {
  const stages = tbpttStages(tbptt);
  return stages.reduce((sum, stage, index) => {
    const end = Math.min(step, stages[index + 1]?.fromStep ?? Infinity);
    return sum + Math.max(0, end - stage.fromStep) * ofStep(stage);
  }, 0);
}

function lanesOf({ shards, lanesPerShard }: BatchSpec): number {
  return shards * lanesPerShard;
}
