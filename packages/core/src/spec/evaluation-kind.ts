import type { EvaluationSpec } from "./job-spec.js";

/** The sections of an evaluation, of which it has one. */
export const EVALUATION_KINDS = [
  "passkey",
  "lossByPosition",
  "stateStatistics",
  "effectiveRemembrance",
] as const satisfies (keyof EvaluationSpec)[];

export type EvaluationKind = (typeof EVALUATION_KINDS)[number];

/** @throws RangeError when it has no section, which no validated spec lacks */
export function evaluationKind(evaluation: EvaluationSpec): EvaluationKind {
  const kind = EVALUATION_KINDS.find((name) => evaluation[name] !== undefined);
  if (kind === undefined) throw new RangeError(`evaluation ${evaluation.name} is of no kind`);
  return kind;
}
