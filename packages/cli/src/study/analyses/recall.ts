import { capacityPoint, fitExponential, type ExponentialFit, type Point } from "@segue/core";
import { accuracyByLength, lastPasskeys, type JobResult } from "../results.js";
import { groupBy } from "../group-by.js";

/** The search for T_recall, the longest context of near-perfect retrieval of a state size, and its exponential (paper.md sections 5 and 14). */
export interface RecallAnalysis {
  readonly kind: "recall";
  /** Accuracy that every length up to T_recall exceeds. */
  readonly accuracy: number;
  readonly sizes: readonly RecallSize[];
  /** State size in millions of floats, T_recall in units of 1,024 tokens. */
  readonly points: readonly Point[];
  /** Null for fewer than three sizes. */
  readonly fit: ExponentialFit | null;
}

export interface RecallSize {
  readonly stateFloats: number;
  /** The job with the longest recall. */
  readonly job: string;
  readonly trainTokens: number;
  /** 0 when not even the shortest length passes. */
  readonly recallTokens: number;
  /** Every length that was tried passes: it may be longer. */
  readonly isLowerBound: boolean;
  readonly lengths: readonly { readonly length: number; readonly accuracy: number }[];
}

/** Of every state size the best of all its jobs, whatever they differ in. */
export function recallAnalysis(jobs: readonly JobResult[], accuracy: number, evaluations?: readonly string[]): RecallAnalysis {
  const tried = jobs.flatMap((job) =>
    lastPasskeys(job, evaluations).map(({ result }) => recallOf(job, accuracyByLength(result), accuracy)),
  );
  const sizes = [...groupBy(tried, ({ stateFloats }) => stateFloats).values()]
    .map((found) => found.reduce((best, one) => (one.recallTokens > best.recallTokens ? one : best)))
    .sort((a, b) => a.stateFloats - b.stateFloats);
  const points = sizes.map(({ stateFloats, recallTokens }) => capacityPoint(stateFloats, recallTokens));
  return { kind: "recall", accuracy, sizes, points, fit: points.length >= 3 ? fitExponential(points) : null };
}

function recallOf({ name, stateFloats, trainTokens }: JobResult, lengths: RecallSize["lengths"], accuracy: number): RecallSize {
  const failed = lengths.findIndex((one) => !(one.accuracy > accuracy));
  const passed = failed === -1 ? lengths : lengths.slice(0, failed);
  return { stateFloats, job: name, trainTokens, recallTokens: passed.at(-1)?.length ?? 0, isLowerBound: failed === -1, lengths };
}
