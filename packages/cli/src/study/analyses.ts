import { collapseAnalysis, type CollapseAnalysis } from "./analyses/collapse.js";
import { curesAnalysis, type CuresAnalysis } from "./analyses/cures.js";
import { forgetAnalysis, type ForgetAnalysis } from "./analyses/forget.js";
import { learningRateAnalysis, type LearningRateAnalysis } from "./analyses/learning-rate.js";
import { moreDataAnalysis, type MoreDataAnalysis } from "./analyses/more-data.js";
import { recallAnalysis, type RecallAnalysis } from "./analyses/recall.js";
import type { JobResult } from "./results.js";
import type { AnalysisSpec, Study } from "./study-spec.js";

export type Analysis = { readonly name: string } & (
  CollapseAnalysis | ForgetAnalysis | RecallAnalysis | CuresAnalysis | MoreDataAnalysis | LearningRateAnalysis
);

/** What a study concludes from its jobs; those that did not succeed count for nothing. */
export function analyse({ analyses }: Pick<Study, "analyses">, jobs: readonly JobResult[]): Analysis[] {
  const done = jobs.filter(({ phase }) => phase === "SUCCEEDED");
  return analyses.map((spec) => ({
    name: spec.name,
    ...analysisOf(
      spec,
      done.filter(({ grid }) => spec.jobs?.includes(grid) ?? true),
    ),
  }));
}

function analysisOf({ kind, evaluations, accuracy }: AnalysisSpec, jobs: readonly JobResult[]) {
  switch (kind) {
    case "collapse":
      return collapseAnalysis(jobs, evaluations);
    case "forget":
      return forgetAnalysis(jobs, evaluations);
    case "recall":
      return recallAnalysis(jobs, accuracy, evaluations);
    case "cures":
      return curesAnalysis(jobs, evaluations);
    case "moreData":
      return moreDataAnalysis(jobs, evaluations);
    case "learningRate":
      return learningRateAnalysis(jobs, evaluations);
  }
}
