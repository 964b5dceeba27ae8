import type { JobSpec } from "@segue/core";

export type Phase = "WAITING" | "RUNNING" | "PAUSING" | "PAUSED" | "SUCCEEDED" | "CANCELLED" | "FAILED";

/** What the store keeps of a job: `jobs/<id>/job.json`. */
export interface JobRecord {
  readonly jobId: string;
  /** The effective spec. */
  readonly spec: JobSpec;
  /** The effective spec before the first edit; absent: it was never edited. */
  readonly submittedSpec?: JobSpec | undefined;
  readonly phase: Phase;
  /** Why the job is where it is; empty while it simply runs. */
  readonly reason: string;
  /** Stable code of what made the job FAILED. */
  readonly errorCode?: string | undefined;
  /** Goes up by one each time training continues after an interruption; 0 before it first starts. */
  readonly attempt: number;
  /** Steps that the documents last for, where they end before `train.steps` and are counted. */
  readonly dataSteps?: number | undefined;
  readonly idempotencyKey?: string | undefined;
  readonly submittedAtMs: number;
  readonly updatedAtMs: number;
}

/** A job in a final phase never changes again. */
export function isFinal(phase: Phase): boolean {
  return phase === "SUCCEEDED" || phase === "CANCELLED" || phase === "FAILED";
}

/** Jobs that a starting coordinator continues by itself. */
export function isActive(phase: Phase): boolean {
  return phase === "WAITING" || phase === "RUNNING";
}
