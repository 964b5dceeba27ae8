import type { JobSpec } from "@segue/core";

/** How long a slower member may take for its part of a step; a lost one is noticed by the coordinator within seconds. */
const STEP_PATIENCE_MS = 300_000;
/** Timers know no more. */
const MOST_MS = 2 ** 31 - 1;

/** How long a member waits for another's nodes: under diloco these come after a block of steps on each of the other's replicas. */
export function exchangePatienceMs({ sync }: Pick<JobSpec, "sync">): number {
  const steps = sync.mode === "diloco" ? sync.innerSteps * sync.replicas : 1;
  return Math.min(STEP_PATIENCE_MS * steps, MOST_MS);
}
