import { cureKey, NO_CURE, type CureSpec } from "@segue/core";

/** Names of everything in Redis; docs/reference/redis.md says what each holds. */
export const redisKeys = {
  jobs: "segue:jobs",
  job: (jobId: string) => `segue:job:${jobId}`,
  /** Stream of every, every 10th or every 100th step of one attempt. */
  train: (jobId: string, attempt: number, every: 1 | 10 | 100 = 1) =>
    `segue:job:${jobId}:a${attempt}:train${every === 1 ? "" : every}`,
  checkpoints: (jobId: string) => `segue:job:${jobId}:checkpoints`,
  evaluations: (jobId: string) => `segue:job:${jobId}:evaluations`,
  workers: "segue:workers",
  evaluation: (evaluationId: string) => `segue:evaluation:${evaluationId}`,
  cells: (evaluationId: string) => `segue:evaluation:${evaluationId}:cells`,
  /** Result of a cell, whichever evaluation asked for it first. @param work all that the result depends on, beside checkpoint and cure */
  cellResult: (digest: string, work: string, cure: CureSpec = NO_CURE) => `segue:cell:${digest}_${work}${cureSuffix(cure)}`,
  /** What of a cell's result is too large for the others. */
  cellFile: (digest: string, work: string, cure: CureSpec = NO_CURE) => `segue:file:${digest}_${work}${cureSuffix(cure)}`,
  evaluators: "segue:evaluators",
  /** Pub/sub channel. */
  events: "segue:events",
} as const;

/** Queues of BullMQ: one parent per evaluation, of whatever kind, one child per cell. */
export const queueNames = { heatmaps: "segue-heatmaps", cells: "segue-cells" } as const;

/** Evaluations of one name that differ in the cure stand side by side. */
export function evaluationId(jobId: string, step: number, name: string, cure: CureSpec = NO_CURE): string {
  return `${jobId}_${step}_${name}${cureSuffix(cure)}`;
}

/**
 * A BullMQ job id: adding a cell that its evaluation has already is a no-op. Each evaluation has jobs of its own, because a job in BullMQ
 * has one parent only; what they share is the result (see `redisKeys.cellResult`).
 * @param part which part of the evaluation the cell is
 */
export function cellJobId(evaluationId: string, part: string): string {
  return `${evaluationId}_${part}`;
}

/** Names from before there were cures stay. */
function cureSuffix(cure: CureSpec): string {
  return cure.kind === "none" ? "" : `+${cureKey(cure)}`;
}
