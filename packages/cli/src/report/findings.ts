import type { EvaluationRecord, LossRecord, RemembranceRecord, StatesRecord } from "@segue/runtime";

/** Everything that Redis knows of a job's training and of the evaluations of its checkpoints. */
export interface JobFindings {
  readonly jobId: string;
  /** The job's hash (docs/reference/redis.md). */
  readonly fields: Readonly<Record<string, string>>;
  readonly checkpoints: readonly { readonly step: number; readonly digest: string }[];
  readonly training: readonly TrainingPoint[];
  readonly passkeys: readonly EvaluationRecord[];
  readonly losses: readonly LossRecord[];
  readonly remembrances: readonly RemembranceRecord[];
  readonly states: readonly StatesRecord[];
}

export interface TrainingPoint {
  readonly step: number;
  readonly loss: number;
}

/** Steps of checkpoints of which something was evaluated, ascending. */
export function evaluatedSteps({ passkeys, losses, remembrances, states }: JobFindings): number[] {
  const steps = [...passkeys, ...losses, ...remembrances, ...states].map(({ step }) => step);
  return [...new Set(steps)].sort((a, b) => a - b);
}

/** Evaluations of one name, which differ in the cure, without one first. */
export function byName<T extends { readonly name: string; readonly cure: { readonly kind: string } }>(
  records: readonly T[],
): { name: string; records: T[] }[] {
  const names = [...new Set(records.map(({ name }) => name))].sort();
  const rank = ({ cure }: T): number => (cure.kind === "none" ? 0 : 1);
  return names.map((name) => ({
    name,
    records: records.filter((record) => record.name === name).sort((a, b) => rank(a) - rank(b)),
  }));
}
