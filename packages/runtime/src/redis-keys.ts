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
  /** Result of a cell, whichever evaluation asked for it first. */
  cellResult: (cell: CellIdentity | LossCellIdentity) =>
    `segue:cell:${"firstPrompt" in cell ? lossCellText(cell) : cellText(cell)}`,
  evaluators: "segue:evaluators",
  /** Pub/sub channel. */
  events: "segue:events",
} as const;

/** Queues of BullMQ: one parent per evaluation, of whatever kind, one child per cell. */
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

/** The same for a cell of an evaluation of loss by position. */
export interface LossCellIdentity {
  readonly digest: string;
  readonly tokens: number;
  readonly bucketTokens: number;
  readonly prompt: string;
  readonly seed: number;
  readonly firstPrompt: number;
  readonly prompts: number;
}

export function evaluationId(jobId: string, step: number, name: string): string {
  return `${jobId}_${step}_${name}`;
}

/**
 * A BullMQ job id: adding a cell that its evaluation has already is a no-op. Each evaluation has jobs of its own, because a job in BullMQ
 * has one parent only; what they share is the result (see `redisKeys.cellResult`).
 */
export function cellJobId(
  evaluationId: string,
  cell: Pick<CellIdentity, "length" | "depth"> | Pick<LossCellIdentity, "firstPrompt" | "prompts">,
): string {
  return "firstPrompt" in cell
    ? `${evaluationId}_prompts-${cell.firstPrompt}-${cell.prompts}`
    : `${evaluationId}_len-${cell.length}_depth-${cell.depth}`;
}

function cellText(cell: CellIdentity): string {
  const work = `len-${cell.length}_depth-${cell.depth}_seed-${cell.seed}_${cell.template}_${cell.samples}x${cell.digits}`;
  const stop = cell.stopWidth > 0 ? `_stop-${cell.stopWidth}` : "";
  return `${cell.digest}_passkey_${work}_${cell.carryState ? "carry" : "reset"}${stop}`;
}

function lossCellText(cell: LossCellIdentity): string {
  const work = `tokens-${cell.tokens}_bucket-${cell.bucketTokens}_${cell.prompt}_seed-${cell.seed}`;
  return `${cell.digest}_loss_${work}_prompts-${cell.firstPrompt}-${cell.prompts}`;
}
