import { meanLoss } from "@segue/core";
import type { LossResult } from "../../evaluation/read-loss.js";

/** What a curve of loss by position comes to. */
export interface CurveFindings {
  /** Largest loss within the training length. */
  readonly trainLoss: number | null;
  /** Mean over the last quarter of the curve. */
  readonly lateLoss: number | null;
  readonly worstRatio: number | null;
  /** The collapse rule's verdict. */
  readonly collapsed: boolean | null;
}

/** Of an evaluation of another kind. */
export const NO_CURVE: CurveFindings = { trainLoss: null, lateLoss: null, worstRatio: null, collapsed: null };

export function curveFindings(result: LossResult): CurveFindings {
  const { trainLoss = null, worstRatio = null, collapsed = null } = result.collapse ?? {};
  return { trainLoss, lateLoss: meanLoss(result, 0.75 * result.tokens), worstRatio, collapsed };
}
