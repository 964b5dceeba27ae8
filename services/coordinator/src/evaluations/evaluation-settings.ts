import { SegueError, type EvaluationSpec, type Violation } from "@segue/core";
import type { QueuedEvaluation } from "./kinds/kind.js";

export interface EvaluationRequest {
  readonly jobId: string;
  readonly step: number;
  /** Of the checkpoint. */
  readonly digest: string;
  readonly evaluation: EvaluationSpec;
}

/** What fields hold that versions before them did not write. */
const BEFORE: Readonly<Record<string, string>> = { kind: "passkey" };

/** In which settings an evaluation that is asked for differs from one of its name that is known. Pure. */
export function differences(asked: QueuedEvaluation["fields"], known: Readonly<Record<string, string>>): Violation[] {
  return Object.entries(asked).flatMap(([field, value]) => {
    const before = known[field] ?? BEFORE[field] ?? "0";
    return String(value) === before ? [] : [{ field, description: `is ${before}, asked for is ${value}` }];
  });
}

/** A name stands for one evaluation of a checkpoint: another under it would show the first one's results as its own. */
export function nameTaken({ jobId, step, evaluation }: EvaluationRequest, differing: readonly Violation[]): SegueError {
  const list = differing.map(({ field, description }) => `${field} ${description}`).join("; ");
  const message = `Step ${step} of ${jobId} has an evaluation named ${evaluation.name} with other settings (${list}). Give this one another name.`;
  return new SegueError("EVALUATION_NAME_TAKEN", message, { status: "ALREADY_EXISTS", violations: differing });
}
