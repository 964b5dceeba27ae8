import { lastPasskeys, type JobResult } from "../results.js";

/** Jobs by their passkey accuracy, the best first: the paper's way to choose a learning rate, since losses barely differ (paper.md 3.3). */
export interface LearningRateAnalysis {
  readonly kind: "learningRate";
  readonly rows: readonly LearningRateRow[];
}

export interface LearningRateRow {
  readonly job: string;
  readonly learningRate: number;
  readonly loss: number;
  /** Mean over the cells of all its passkey evaluations. */
  readonly accuracy: number;
}

export function learningRateAnalysis(jobs: readonly JobResult[], evaluations?: readonly string[]): LearningRateAnalysis {
  const rows = jobs.flatMap((job) => {
    const cells = lastPasskeys(job, evaluations).flatMap(({ result }) => result.cells);
    if (cells.length === 0) return [];
    const accuracy = cells.reduce((sum, { correct, samples }) => sum + correct / samples, 0) / cells.length;
    return [{ job: job.name, learningRate: job.spec.optimizer.learningRate, loss: job.loss, accuracy }];
  });
  return { kind: "learningRate", rows: rows.sort((a, b) => b.accuracy - a.accuracy || a.loss - b.loss) };
}
