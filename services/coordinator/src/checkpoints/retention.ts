import type { CheckpointsSpec } from "@segue/core";

/**
 * What is known of a stored checkpoint. `verified`: this process has written it or read every byte of it. `damaged`: it was found to be
 * incomplete or changed.
 */
export type CheckpointHealth = "verified" | "unknown" | "damaged";

export interface RetainedCheckpoint {
  readonly step: number;
  readonly health: CheckpointHealth;
}

/**
 * The steps of the checkpoints to delete. Kept are the newest `keepLast`, those whose step is a multiple of `keepEvery` (0: none), and
 * always the newest verified one. Damaged ones count for nothing; they go as soon as a newer one is verified.
 */
export function superseded(
  checkpoints: readonly RetainedCheckpoint[],
  { keepLast, keepEvery }: Pick<CheckpointsSpec, "keepLast" | "keepEvery">,
): number[] {
  const newestFirst = [...checkpoints].sort((a, b) => b.step - a.step);
  const newestVerified = newestFirst.find(({ health }) => health === "verified")?.step;
  const newest = newestFirst.filter(({ health }) => health !== "damaged").slice(0, Math.max(1, keepLast));
  const isKept = ({ step, health }: RetainedCheckpoint): boolean => {
    if (health === "damaged") return newestVerified === undefined || step > newestVerified;
    if (step === newestVerified || newest.some((kept) => kept.step === step)) return true;
    return keepEvery > 0 && step % keepEvery === 0;
  };
  return newestFirst.filter((checkpoint) => !isKept(checkpoint)).map(({ step }) => step);
}
