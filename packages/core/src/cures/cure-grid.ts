import { cureKey, type CureSpec } from "./cure.js";
import { meanLoss } from "../position/spans.js";
import type { LossCurve } from "../position/collapse.js";

export interface RankedCure {
  readonly cure: CureSpec;
  /** Over all positions; null where it is no finite number. */
  readonly meanLoss: number | null;
  /** The same within the training length: what the cure costs on short contexts. */
  readonly trainLoss: number | null;
}

/**
 * Cures by the mean loss over all positions, the best first: the search for reduced retention and insertion (paper.md section 14). Equal
 * losses are in order of their names.
 */
export function rankCures<T extends LossCurve & { readonly cure: CureSpec; readonly trainTokens: number }>(
  curves: readonly T[],
): (RankedCure & { readonly curve: T })[] {
  const ranked = curves.map((curve) => ({
    curve,
    cure: curve.cure,
    meanLoss: meanLoss(curve),
    trainLoss: meanLoss(curve, 0, curve.trainTokens),
  }));
  return ranked.sort(
    (a, b) => (a.meanLoss ?? Infinity) - (b.meanLoss ?? Infinity) || cureKey(a.cure).localeCompare(cureKey(b.cure)),
  );
}
