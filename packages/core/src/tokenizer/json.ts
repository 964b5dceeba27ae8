import { invalid } from "./unsupported.js";

export type JsonObject = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A part of a tokenizer.json with a type; undefined for null. @throws SegueError TOKENIZER_INVALID */
export function partOf(value: unknown, name: string): (JsonObject & { readonly type: string }) | undefined {
  if (value === null || value === undefined) return undefined;
  if (!isObject(value) || typeof value["type"] !== "string") throw invalid(`its ${name} has no type`);
  return value as JsonObject & { readonly type: string };
}

/** The parts of which a part consists: those of a Sequence, or itself. */
export function flatten(value: unknown, name: string, list: string): (JsonObject & { readonly type: string })[] {
  const part = partOf(value, name);
  if (!part) return [];
  if (part.type !== "Sequence") return [part];
  const items = part[list];
  if (!Array.isArray(items)) throw invalid(`its ${name} has no ${list}`);
  return items.flatMap((item) => flatten(item, name, list));
}

/** @throws SegueError TOKENIZER_INVALID */
export function textOf(part: JsonObject, key: string, otherwise?: string): string {
  const value = part[key] ?? otherwise;
  if (typeof value !== "string") throw invalid(`${JSON.stringify(key)} is no text`);
  return value;
}

export function flagOf(part: JsonObject, key: string, otherwise: boolean): boolean {
  const value = part[key] ?? otherwise;
  if (typeof value !== "boolean") throw invalid(`${JSON.stringify(key)} is neither true nor false`);
  return value;
}
