import type { CheckpointsSpec, EvaluationSpec } from "@segue/core";

export interface PlannedCheckpoint {
  readonly step: number;
  /** Whether training ends with it. */
  readonly isLast: boolean;
}

/**
 * The evaluations a checkpoint gets: each on every n-th regular checkpoint, all on the last one. Checkpoints of a pause or a shutdown
 * get none: which ones there are must not depend on interruptions.
 */
export function planEvaluations(
  evaluations: readonly EvaluationSpec[],
  { everySteps }: CheckpointsSpec,
  { step, isLast }: PlannedCheckpoint,
): EvaluationSpec[] {
  if (isLast) return [...evaluations];
  if (everySteps === 0 || step % everySteps !== 0) return [];
  return evaluations.filter(({ everyCheckpoints }) => (step / everySteps) % everyCheckpoints === 0);
}
