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
  /** Stable code of what made the job FAILED, or what it is PAUSED for until people have put it right; absent: paused on request. */
  readonly errorCode?: string | undefined;
  /** Goes up by one each time training continues after an interruption; 0 before it first starts. */
  readonly attempt: number;
  /** Step of the newest checkpoint that was written or gone on from; absent: there was none. */
  readonly checkpointStep?: number | undefined;
  /** Steps that the documents last for, where they end before `train.steps` and are counted. */
  readonly dataSteps?: number | undefined;
  /** What the data was when training began, as its source describes it; absent: it has not. */
  readonly dataFingerprint?: unknown;
  readonly idempotencyKey?: string | undefined;
  readonly submittedAtMs: number;
  readonly updatedAtMs: number;
}

/** A job in a final phase never changes again. */
export function isFinal(phase: Phase): boolean {
  return phase === "SUCCEEDED" || phase === "CANCELLED" || phase === "FAILED";
}

/** Jobs that a starting coordinator continues by itself: also those that paused because something was not there. */
export function isActive({ phase, errorCode }: Pick<JobRecord, "phase" | "errorCode">): boolean {
  const pausedForTrouble = (phase === "PAUSED" || phase === "PAUSING") && errorCode !== undefined;
  return phase === "WAITING" || phase === "RUNNING" || pausedForTrouble;
}
