import { NUMBER_FORMATS } from "./numbers.js";

export interface AxisSpec {
  /** With its unit. */
  readonly title: string;
  /** A logarithmic axis is a linear one of logarithms: only so its ticks lie where wanted. */
  readonly scale: "linear" | "log2" | "log10";
  readonly format: keyof typeof NUMBER_FORMATS;
  /** Bounds that do not follow the data. */
  readonly min?: number;
  readonly max?: number;
}

/** Where ticks lie, in the axis's own numbers (see {@link onAxis}). */
export interface AxisRange {
  readonly min: number;
  readonly max: number;
  readonly interval: number;
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

/** A range around all values, with whole steps between round numbers. */
export function axisRange(axis: AxisSpec, values: readonly (number | null)[], ticks: number): AxisRange {
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
  const interval =
    axis.scale === "linear"
      ? roundStep((high - low) / ticks || Math.abs(low) / ticks || 1 / ticks)
      : wholeStep((high - low) / ticks);
  const outward = (place: number, round: (steps: number) => number): number =>
    Number((round(place / interval) * interval).toPrecision(12));
  // A time axis in logarithms may begin and end between ticks; a whole decade of nothing says nothing.
  const min = fixed.min ?? (axis.scale === "log2" ? Math.floor(low) : outward(low, (steps) => Math.floor(steps + 1e-9)));
  const max = fixed.max ?? (axis.scale === "log2" ? Math.ceil(high) : outward(high, (steps) => Math.ceil(steps - 1e-9)));
  return { min, max: max > min ? max : min + interval, interval };
}

/** 1, 2, 2.5 or 5 times a power of ten, not smaller than the step. */
function roundStep(step: number): number {
  const power = 10 ** Math.floor(Math.log10(step));
  return power * ([1, 2, 2.5, 5].find((factor) => factor * power >= step * (1 - 1e-9)) ?? 10);
}

function wholeStep(step: number): number {
  return Math.max(1, Math.ceil(step - 1e-9));
}
