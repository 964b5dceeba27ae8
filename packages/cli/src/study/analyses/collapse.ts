import { meanLoss } from "@segue/core";
import { accuracyByLength, lastCurves, lastPasskeys, type JobResult } from "../results.js";

/** Every job's verdict on state collapse, with its accuracies beside it. */
export interface CollapseAnalysis {
  readonly kind: "collapse";
  readonly rows: readonly CollapseRow[];
}

export interface CollapseRow {
  readonly job: string;
  readonly evaluation: string;
  readonly stateFloats: number;
  readonly trainTokens: number;
  /** Largest loss within the training length. */
  readonly trainLoss: number | null;
  /** Mean over the last quarter of the curve. */
  readonly lateLoss: number | null;
  readonly worstRatio: number | null;
  readonly collapsed: boolean | null;
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
      trainLoss: result.collapse?.trainLoss ?? null,
      lateLoss: meanLoss(result, 0.75 * result.tokens),
      worstRatio: result.collapse?.worstRatio ?? null,
      collapsed: result.collapse?.collapsed ?? null,
      accuracy: lastPasskeys(job).flatMap((passkey) => accuracyByLength(passkey.result)),
    })),
  );
  return { kind: "collapse", rows };
}
