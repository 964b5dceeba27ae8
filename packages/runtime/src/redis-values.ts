import { cureSchema, NO_CURE, type CureSpec } from "@segue/core";

/** Readers of what Redis holds, which may be missing, malformed or of another version: they never throw. */

/** The value as a finite number, else null. */
export function numberOrNull(value: unknown): number | null {
  if (value === undefined || value === null || value === "") return null;
  const number = Number(value);
  return Number.isFinite(number) ? number : null;
}

export function numberOrZero(value: unknown): number {
  return numberOrNull(value) ?? 0;
}

export function textOrEmpty(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** What the JSON says; undefined when it is none. */
export function parsedJson(value: string | undefined): unknown {
  if (value === undefined) return undefined;
  try {
    return JSON.parse(value);
  } catch {
    return undefined;
  }
}

/** The value as an object, else one without fields. */
export function objectOrEmpty(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

/** The cure in JSON; none where there is none, as in what was written before there were cures. */
export function cureOf(json: string | undefined): CureSpec {
  return cureSchema.safeParse(parsedJson(json)).data ?? NO_CURE;
}

/** The finite numbers of a list; none when it is no list. */
export function numberList(value: unknown): number[] {
  return Array.isArray(value) ? value.map(numberOrNull).filter((entry) => entry !== null) : [];
}

/** A list of numbers in which null stands for one that is not finite; none when it is no list. */
export function numbersOrNull(value: unknown): (number | null)[] {
  return Array.isArray(value) ? value.map((entry) => (typeof entry === "number" ? entry : null)) : [];
}
