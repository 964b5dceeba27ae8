import { accuracyByLength, type JobResult } from "../results.js";
import { curveFindings, NO_CURVE, type CurveFindings } from "./curve-findings.js";

/** A job's checkpoints by the tokens it had seen: whether more training makes it forget less (paper.md section 1.6, E-a). */
export interface MoreDataAnalysis {
  readonly kind: "moreData";
  readonly rows: readonly MoreDataRow[];
}

export interface MoreDataRow extends CurveFindings {
  readonly job: string;
  readonly evaluation: string;
  /** Training tokens until the checkpoint. */
  readonly tokens: number;
  /** Passkeys: mean accuracy at lengths within the training length, and beyond it. */
  readonly accuracyWithin: number | null;
  readonly accuracyBeyond: number | null;
}

export function moreDataAnalysis(jobs: readonly JobResult[], evaluations?: readonly string[]): MoreDataAnalysis {
  const rows = jobs.flatMap((job) =>
    job.evaluations
      .filter(({ result }) => result.cure.kind === "none" && (evaluations?.includes(result.name) ?? true))
      .map((one): MoreDataRow => {
        const row = { job: job.name, evaluation: one.result.name, tokens: one.tokens };
        if (one.kind === "passkey") {
          const lengths = accuracyByLength(one.result);
          return {
            ...row,
            ...NO_CURVE,
            accuracyWithin: meanAccuracy(lengths.filter(({ length }) => length <= job.trainTokens)),
            accuracyBeyond: meanAccuracy(lengths.filter(({ length }) => length > job.trainTokens)),
          };
        }
        return { ...row, ...curveFindings(one.result), accuracyWithin: null, accuracyBeyond: null };
      })
      .sort((a, b) => a.evaluation.localeCompare(b.evaluation) || a.tokens - b.tokens),
  );
  return { kind: "moreData", rows };
}

function meanAccuracy(lengths: readonly { readonly accuracy: number }[]): number | null {
  return lengths.length === 0 ? null : lengths.reduce((sum, { accuracy }) => sum + accuracy, 0) / lengths.length;
}
