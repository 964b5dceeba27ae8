import { capacityPoint, fitLine, type LineFit, type Point } from "@segue/core";
import { lastCurves, type JobResult } from "../results.js";
import { groupBy } from "../group-by.js";

/** The search for T_forget, the training length from which a state size forgets robustly, and its line (paper.md sections 5 and 14). */
export interface ForgetAnalysis {
  readonly kind: "forget";
  readonly sizes: readonly ForgetSize[];
  /** State size in millions of floats, T_forget in units of 1,024 tokens. */
  readonly points: readonly Point[];
  /** Null for fewer than two sizes with a threshold. */
  readonly fit: LineFit | null;
}

export interface ForgetSize {
  readonly stateFloats: number;
  /** Shortest training first. */
  readonly ladder: readonly {
    readonly job: string;
    readonly trainTokens: number;
    readonly worstRatio: number | null;
    readonly collapsed: boolean;
  }[];
  /** The first training length that passes the collapse rule; null when none does. */
  readonly thresholdTokens: number | null;
  /** No shorter training failed: the threshold may lie below it. */
  readonly isUpperBound: boolean;
}

export function forgetAnalysis(jobs: readonly JobResult[], evaluations?: readonly string[]): ForgetAnalysis {
  const steps = jobs.flatMap((job) =>
    lastCurves(job, evaluations).flatMap(({ result: { trainTokens, collapse } }) =>
      collapse === null
        ? []
        : [
            {
              stateFloats: job.stateFloats,
              job: job.name,
              trainTokens,
              worstRatio: collapse.worstRatio,
              collapsed: collapse.collapsed,
            },
          ],
    ),
  );
  const sizes = [...groupBy(steps, ({ stateFloats }) => stateFloats)]
    .sort(([a], [b]) => a - b)
    .map(([stateFloats, found]): ForgetSize => {
      const ladder = found.sort((a, b) => a.trainTokens - b.trainTokens).map(({ stateFloats: _, ...step }) => step);
      const first = ladder.findIndex(({ collapsed }) => !collapsed);
      return { stateFloats, ladder, thresholdTokens: ladder[first]?.trainTokens ?? null, isUpperBound: first === 0 };
    });
  const points = sizes.flatMap(({ stateFloats, thresholdTokens }) =>
    thresholdTokens === null ? [] : [capacityPoint(stateFloats, thresholdTokens)],
  );
  return { kind: "forget", sizes, points, fit: points.length >= 2 ? fitLine(points) : null };
}
