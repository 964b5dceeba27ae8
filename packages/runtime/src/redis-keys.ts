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
  /** Result of a cell, whichever heat map asked for it first. */
  cellResult: (cell: CellIdentity) => `segue:cell:${cellText(cell)}`,
  evaluators: "segue:evaluators",
  /** Pub/sub channel. */
  events: "segue:events",
} as const;

/** Queues of BullMQ: one parent per heat map, one child per cell. */
export const queueNames = { heatmaps: "segue-heatmaps", cells: "segue-cells" } as const;

/** What makes a cell the same work: two cells that agree in all of it share one result. */
export interface CellIdentity {
  readonly digest: string;
  readonly length: number;
  readonly depth: number;
  readonly seed: number;
  readonly template: string;
  readonly samples: number;
  readonly digits: number;
  readonly carryState: boolean;
  readonly stopWidth: number;
}

export function evaluationId(jobId: string, step: number, name: string): string {
  return `${jobId}_${step}_${name}`;
}

/**
 * A BullMQ job id: adding a cell that its heat map has already is a no-op. Each heat map has jobs of its own, because a job in BullMQ has
 * one parent only; what they share is the result (see `redisKeys.cellResult`).
 */
export function cellJobId(evaluationId: string, { length, depth }: Pick<CellIdentity, "length" | "depth">): string {
  return `${evaluationId}_len-${length}_depth-${depth}`;
}

function cellText(cell: CellIdentity): string {
  const work = `len-${cell.length}_depth-${cell.depth}_seed-${cell.seed}_${cell.template}_${cell.samples}x${cell.digits}`;
  const stop = cell.stopWidth > 0 ? `_stop-${cell.stopWidth}` : "";
  return `${cell.digest}_passkey_${work}_${cell.carryState ? "carry" : "reset"}${stop}`;
}
