import { cureKey, meanLoss } from "@segue/core";
import { accuracyByLength, type JobResult } from "../results.js";
import { groupBy } from "../group-by.js";

/** The cures of each evaluation of a job's last checkpoint, side by side. */
export interface CuresAnalysis {
  readonly kind: "cures";
  readonly rows: readonly CureRow[];
}

export interface CureRow {
  readonly job: string;
  readonly evaluation: string;
  readonly cure: string;
  /** Of loss by position: the largest loss within the training length, the mean over the last quarter, and the rule's verdict. */
  readonly trainLoss: number | null;
  readonly lateLoss: number | null;
  readonly worstRatio: number | null;
  readonly collapsed: boolean | null;
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
          const nothing = { trainLoss: null, lateLoss: null, worstRatio: null, collapsed: null, accuracy: [] };
          const row = { job: job.name, evaluation: name, cure: cureKey(cure), ...nothing };
          if (one.kind === "passkey") return { ...row, accuracy: accuracyByLength(one.result) };
          const { collapse, tokens } = one.result;
          return { ...row, ...(collapse ?? {}), lateLoss: meanLoss(one.result, 0.75 * tokens) };
        }),
      );
  });
  return { kind: "cures", rows: rows.map(onlyRow) };
}

/** Without what else a verdict holds. */
function onlyRow({ job, evaluation, cure, trainLoss, lateLoss, worstRatio, collapsed, accuracy }: CureRow): CureRow {
  return { job, evaluation, cure, trainLoss, lateLoss, worstRatio, collapsed, accuracy };
}
