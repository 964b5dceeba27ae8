import { cureKey, meanLoss, type CollapseVerdict, type LossCurve } from "@segue/core";
import { parseLossRecord } from "@segue/runtime";

/** An evaluation of loss by position as the page draws it. */
export interface LossView {
  readonly id: string;
  readonly name: string;
  readonly step: number;
  /** In one word; none where there is none. */
  readonly cure: string;
  /** queued, running, done or failed. */
  readonly status: string;
  readonly reason: string;
  readonly prompt: string;
  readonly prompts: number;
  readonly trainTokens: number;
  readonly collapseFactor: number;
  readonly collapse: CollapseVerdict | null;
  /** For each point, how many tokens come before its end; empty until it is done. */
  readonly positions: readonly number[];
  /** Mean loss from the point before to this one; null where it is no finite number. */
  readonly losses: readonly (number | null)[];
}

/** More than a screen shows on a logarithmic axis. */
const MAX_POINTS = 240;

export function lossView(id: string, hash: Readonly<Record<string, string>>): LossView {
  const { name, step, cure, status, reason, prompt, prompts, trainTokens, collapseFactor, collapse, ...curve } = parseLossRecord(
    id,
    hash,
  );
  const settings = { prompt, prompts, trainTokens, collapseFactor, collapse };
  return { id, name, step, cure: cureKey(cure), status, reason, ...settings, ...thinned(curve, MAX_POINTS) };
}

/** At most `points` points, close together where the axis is wide: each the mean of the buckets since the one before. */
export function thinned(curve: LossCurve, points: number): Pick<LossView, "positions" | "losses"> {
  const { bucketTokens } = curve;
  const count = curve.losses.length;
  const ends = new Set<number>();
  for (let point = 1; point <= points && count > 0; point++) {
    // Evenly on a logarithmic axis, but no finer than the buckets.
    const even = count <= points ? point : Math.max(point, Math.round(count ** (point / points)));
    ends.add(Math.min(count, even));
  }
  const positions = [...ends].map((end) => end * bucketTokens);
  return { positions, losses: positions.map((end, point) => meanLoss(curve, positions[point - 1] ?? 0, end)) };
}
