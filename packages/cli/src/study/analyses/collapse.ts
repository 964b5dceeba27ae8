import { accuracyByLength, lastCurves, lastPasskeys, type JobResult } from "../results.js";
import { curveFindings, type CurveFindings } from "./curve-findings.js";

/** Every job's verdict on state collapse, with its accuracies beside it. */
export interface CollapseAnalysis {
  readonly kind: "collapse";
  readonly rows: readonly CollapseRow[];
}

export interface CollapseRow extends CurveFindings {
  readonly job: string;
  readonly evaluation: string;
  readonly stateFloats: number;
  readonly trainTokens: number;
  /** Passkeys of the job's last checkpoint, when it was asked for any. */
  readonly accuracy: readonly { readonly length: number; readonly accuracy: number }[];
}

export function collapseAnalysis(jobs: readonly JobResult[], evaluations?: readonly string[]): CollapseAnalysis {
  const rows = jobs.flatMap((job) =>
    lastCurves(job, evaluations).map(({ result }) => ({
      job: job.name,
      evaluation: result.name,
      stateFloats: job.stateFloats,
      trainTokens: result.trainTokens,
      ...curveFindings(result),
      accuracy: lastPasskeys(job).flatMap((passkey) => accuracyByLength(passkey.result)),
    })),
  );
  return { kind: "collapse", rows };
}
