import { modelWidths, tokensPerStep, type JobSpec } from "@segue/core";

/** A token of a segment: itself and its label (int32), the label's weight (float32), whether the state is zeroed (uint8). */
export const TOKEN_BYTES = 13;

/** Above what a core of today reaches, so that no more steps wait than this makes of a round's target time. */
const FLOPS_PER_THREAD = 1e11;

/** Steps whose segments are held at a time: those of the running round and of the one after. */
export function stepsWaiting(spec: JobSpec, threads: number): number {
  const { rounds, train } = spec;
  const stepMs = (1000 * stepFlops(spec)) / (threads * FLOPS_PER_THREAD);
  const roundSteps = Math.max(1, Math.min(rounds.maxSteps, Math.ceil(rounds.targetMs / stepMs)));
  return Math.min(2 * roundSteps, train.steps);
}

/** Of all matrix products of a step, forward and backward; multiply-adds count as two. */
function stepFlops(spec: JobSpec): number {
  const { layers, dModel, dState, headDim, groups, chunk, vocab } = spec.model;
  const { dInner, heads, dInProj } = modelWidths(spec.model);
  const scan = 2 * chunk * dState * groups + heads * headDim * (2 * chunk + 4 * dState);
  const perToken = layers * (2 * dModel * (dInProj + dInner) + scan) + 2 * dModel * vocab;
  return 3 * perToken * tokensPerStep(spec);
}
