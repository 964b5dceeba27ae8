import type { CurvesAxis } from "../figure.js";
import { NUMBER_FORMATS } from "./numbers.js";

/** A logarithmic axis is drawn as a linear one of logarithms: only so its ticks lie where wanted. */
export interface AxisSpec extends CurvesAxis {
  /** Bounds that do not follow the data. */
  readonly min?: number;
  readonly max?: number;
}

/** In the axis's own numbers (see {@link onAxis}). */
export interface AxisRange {
  readonly min: number;
  readonly max: number;
  readonly ticks: readonly number[];
}

/** A value in the axis's own numbers; null where it has no place on it. */
export function onAxis({ scale }: Pick<AxisSpec, "scale">, value: number | null): number | null {
  if (value === null || !Number.isFinite(value)) return null;
  if (scale === "linear") return value;
  if (value <= 0) return null;
  return scale === "log2" ? Math.log2(value) : Math.log10(value);
}

export function tickLabel({ scale, format }: AxisSpec, tick: number): string {
  if (scale === "linear") return NUMBER_FORMATS[format](Number(tick.toPrecision(12)));
  return NUMBER_FORMATS[format](scale === "log2" ? 2 ** tick : 10 ** tick);
}

/** A range that holds all values, and about so many ticks at round numbers. Logarithmic ones hold no more, as of positions; others end at ticks. */
export function axisRange(axis: AxisSpec, values: readonly (number | null)[], tickCount: number): AxisRange {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    const place = onAxis(axis, value);
    if (place === null) continue;
    low = Math.min(low, place);
    high = Math.max(high, place);
  }
  if (low > high) [low, high] = [0, 1];
  const fixed = { min: onAxis(axis, axis.min ?? null), max: onAxis(axis, axis.max ?? null) };
  [low, high] = [fixed.min ?? low, fixed.max ?? high];
  if (!(high > low)) [low, high] = [low - (fixed.min === null ? padding(axis, low) : 0), low + padding(axis, low)];
  const step = (high - low) / tickCount;
  const interval = axis.scale === "linear" ? roundStep(step, axis.format) : Math.max(1, Math.ceil(step - 1e-9));
  const outward = (place: number, round: (steps: number) => number): number => tidy(round(place / interval) * interval);
  const endsAtTicks = axis.scale !== "log2";
  const min = fixed.min ?? (endsAtTicks ? outward(low, (steps) => Math.floor(steps + 1e-9)) : low);
  const max = fixed.max ?? (endsAtTicks ? outward(high, (steps) => Math.ceil(steps - 1e-9)) : high);
  const first = Math.ceil(min / interval - 1e-9);
  const count = Math.floor(max / interval + 1e-9) - first + 1;
  return { min, max, ticks: Array.from({ length: count }, (_, index) => tidy((first + index) * interval)) };
}

/** On both sides of a value that is alone. */
function padding({ scale }: AxisSpec, value: number): number {
  return scale === "linear" ? Math.abs(value) / 2 || 1 : 1;
}

/** 1, 2, 2.5 or 5 times a power of ten, not smaller than the step; of tokens, a power of two. */
function roundStep(step: number, format: AxisSpec["format"]): number {
  if (format === "tokens") return 2 ** Math.ceil(Math.log2(step));
  const power = 10 ** Math.floor(Math.log10(step));
  return power * ([1, 2, 2.5, 5].find((factor) => factor * power >= step * (1 - 1e-9)) ?? 10);
}

/** Without the last bits' dust of a multiplication. */
function tidy(value: number): number {
  return Number(value.toPrecision(12));
}
