import { DataPlan_Basis, type DataPlan } from "@segue/protocol";
import { formatCount } from "./format.js";

/** What the documents give, as `--json` prints it. */
export interface PlanView {
  readonly basis: "exact" | "estimated" | "unknown";
  readonly documents: number;
  readonly documentsTooShort: number;
  /** Of one pass, end tokens included. */
  readonly tokens: number;
  /** `train.steps`, or fewer when the documents end before. */
  readonly steps: number;
}

export function planView({ basis, documents, documentsTooShort, tokens, steps }: DataPlan): PlanView {
  return {
    basis: basis === DataPlan_Basis.EXACT ? "exact" : basis === DataPlan_Basis.ESTIMATED ? "estimated" : "unknown",
    documents: Number(documents),
    documentsTooShort: Number(documentsTooShort),
    tokens: Number(tokens),
    steps,
  };
}

export function planLine({ basis, documents, documentsTooShort, tokens, steps }: PlanView): string {
  if (basis === "unknown") return "documents: too much text to count it now; it is counted when the job has started";
  const about = basis === "estimated" ? "about " : "";
  const short = documentsTooShort > 0 ? `, ${formatCount(documentsTooShort)} left out as too short` : "";
  const each = `${about}${formatCount(documents)} of ${about}${formatCount(tokens)} tokens in one pass${short}`;
  return `documents: ${each}; ${about}${formatCount(steps)} steps of training`;
}
