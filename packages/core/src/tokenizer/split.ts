import { invalid } from "./unsupported.js";
import type { Membership, Pattern } from "./pattern/pattern.js";

const BEHAVIORS = ["removed", "isolated", "mergedwithprevious", "mergedwithnext", "contiguous"] as const;

/** What becomes of the places where a pattern matches. */
export type Behavior = (typeof BEHAVIORS)[number];

/** @throws SegueError TOKENIZER_INVALID */
export function behaviorOf(value: unknown): Behavior {
  const behavior = BEHAVIORS.find((name) => typeof value === "string" && name === value.toLowerCase());
  if (!behavior) throw invalid(`its pre-tokenizer splits with the unknown behavior ${JSON.stringify(value)}`);
  return behavior;
}

/** Splits a text where a pattern matches. */
export class Splitter {
  readonly #pattern: Pattern;
  readonly #behavior: Behavior;
  readonly #invert: boolean;

  /** @param invert whether the gaps between matches count as the matches */
  constructor(pattern: Pattern, behavior: Behavior, invert = false) {
    this.#pattern = pattern;
    this.#behavior = behavior;
    this.#invert = invert;
  }

  split(text: string, out: string[]): void {
    if (this.#behavior === "isolated") {
      const matches = this.#pattern.gapless(text);
      if (matches) {
        for (const match of matches) out.push(match);
        return;
      }
    }
    // Ends of the parts in order, and which are matches.
    const ends: number[] = [];
    const flags: boolean[] = [];
    let at = 0;
    const part = (end: number, isMatch: boolean): void => {
      if (end > at) {
        ends.push(end);
        flags.push(isMatch !== this.#invert);
      }
      at = end;
    };
    this.#pattern.each(text, (start, end) => {
      part(start, false);
      part(end, true);
    });
    part(text.length, false);
    let from = 0;
    ends.forEach((end, index) => {
      const [isMatch, next] = [flags[index]!, flags[index + 1]];
      if (next !== undefined && this.#merges(isMatch, next)) return;
      if (this.#behavior !== "removed" || !isMatch) out.push(text.slice(from, end));
      from = end;
    });
  }

  /** Whether a part and the one after it become one piece. */
  #merges(isMatch: boolean, nextIsMatch: boolean): boolean {
    switch (this.#behavior) {
      case "removed":
      case "isolated":
        return false;
      case "mergedwithprevious":
        return !isMatch && nextIsMatch;
      case "mergedwithnext":
        return isMatch && !nextIsMatch;
      case "contiguous":
        return isMatch === nextIsMatch;
    }
  }

  /** Whether the pieces on both sides of these neighbours may depend on each other. */
  joins(left: string, right: string): boolean {
    return this.#pattern.joins(left, right);
  }

  /** Whether a piece surely ends between these neighbours, which are not joined. */
  parts(left: string, right: string): boolean {
    const [a, b] = [this.#pattern.membership(left), this.#pattern.membership(right)];
    const is = (membership: Membership, isMatch: boolean): boolean =>
      membership === (isMatch !== this.#invert ? "always" : "never");
    // Two characters outside of all matches may lie in one gap.
    if (a !== "always" && b !== "always") return false;
    switch (this.#behavior) {
      case "removed":
      case "isolated":
        return true;
      case "mergedwithprevious":
        return is(a, true);
      case "mergedwithnext":
        return is(b, true);
      case "contiguous":
        return (is(a, true) && is(b, false)) || (is(a, false) && is(b, true));
    }
  }
}
