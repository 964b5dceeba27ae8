import type { JobSpecInput } from "../spec/schema.js";
import type { CureSpec } from "./cure.js";

/** A cure in a job spec: what is absent or undefined takes its default. */
export type WrittenCure = NonNullable<NonNullable<JobSpecInput["evaluations"]>[number]["cures"]>[number];

/** A cure as asked for: what is absent takes its default. */
export type CureInput = { readonly [K in keyof WrittenCure]?: NonNullable<WrittenCure[K]> };

export type CureKind = CureSpec["kind"];
type CureSetting = Exclude<keyof CureInput, "kind">;

/** The settings of each kind, in the order in which the command line takes them. */
export const CURE_SETTINGS = {
  none: [],
  reduced: ["retention", "insertion"],
  normalised: ["multiplier", "referenceTokens", "everyTokens"],
  window: ["tokens", "everyTokens"],
  longMamba: ["dtScale"],
} as const satisfies Record<CureKind, readonly CureSetting[]>;

/** Tokens between two corrections of a state; the chunk of the released code (paper.md section 2.2). */
const EVERY_TOKENS = 128;

/**
 * The cure with every default filled in: the paper's values (paper.md section 2), lengths those of the training. Settings of other kinds are
 * left out.
 */
export function filledCure(input: WrittenCure, trainTokens: number): CureSpec {
  switch (input.kind) {
    case undefined:
    case "none":
      return { kind: "none" };
    case "reduced":
      return { kind: "reduced", retention: input.retention ?? 0.9999, insertion: input.insertion ?? 0.75 };
    case "normalised":
      return {
        kind: "normalised",
        multiplier: input.multiplier ?? 1,
        referenceTokens: input.referenceTokens ?? trainTokens,
        everyTokens: input.everyTokens ?? EVERY_TOKENS,
      };
    case "window": {
      const tokens = input.tokens ?? trainTokens;
      return { kind: "window", tokens, everyTokens: input.everyTokens ?? largestDivisor(tokens, EVERY_TOKENS) };
    }
    case "longMamba":
      return { kind: "longMamba", dtScale: input.dtScale ?? 0.5 };
  }
}

function largestDivisor(of: number, most: number): number {
  for (let divisor = Math.min(of, most); ; divisor--) if (of % divisor === 0) return divisor;
}
