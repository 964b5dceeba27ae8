import { cureKey } from "@segue/core";
import { accuracyByLength, type JobResult } from "../results.js";
import { groupBy } from "../group-by.js";
import { curveFindings, NO_CURVE, type CurveFindings } from "./curve-findings.js";

/** The cures of each evaluation of a job's last checkpoint, side by side. */
export interface CuresAnalysis {
  readonly kind: "cures";
  readonly rows: readonly CureRow[];
}

export interface CureRow extends CurveFindings {
  readonly job: string;
  readonly evaluation: string;
  readonly cure: string;
  /** Of passkeys; else empty. */
  readonly accuracy: readonly { readonly length: number; readonly accuracy: number }[];
}

/** Evaluations with one cure only have nothing to stand beside, and are left out. */
export function curesAnalysis(jobs: readonly JobResult[], evaluations?: readonly string[]): CuresAnalysis {
  const rows = jobs.flatMap((job) => {
    const last = job.evaluations.filter(({ result }) => result.step === job.step && (evaluations?.includes(result.name) ?? true));
    return [...groupBy(last, ({ result }) => result.name).values()]
      .filter((group) => group.length > 1)
      .flatMap((group) =>
        group.map((one): CureRow => {
          const { name, cure } = one.result;
          const row = { job: job.name, evaluation: name, cure: cureKey(cure) };
          if (one.kind === "passkey") return { ...row, ...NO_CURVE, accuracy: accuracyByLength(one.result) };
          return { ...row, ...curveFindings(one.result), accuracy: [] };
        }),
      );
  });
  return { kind: "cures", rows };
}
