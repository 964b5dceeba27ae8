import { unsupported } from "../unsupported.js";
import { literal, toSource, type PatternNode } from "./nodes.js";
import { parsePattern } from "./parse.js";

interface Ends {
  readonly nullable: boolean;
  readonly first: readonly number[];
  readonly last: readonly number[];
}

/** Whether a character lies within a match, whatever stands around it. */
export type Membership = "always" | "never" | "maybe";

/**
 * A pattern of the Python library, and what its form says about all texts: which two neighbours can be touched by one match or by a look
 * at what surrounds it. Where two neighbours cannot, what matches on the left is settled without the right, and the other way round.
 */
export class Pattern {
  readonly #matcher: RegExp;
  /** Matches a character that some alternative takes on its own, in any surroundings. */
  readonly #alone: RegExp | undefined;
  readonly #leaves: RegExp[] = [];
  /** Leaves that can match the character after one that the leaf matched. */
  readonly #follow: Set<number>[] = [];
  readonly #leavesOf = new Map<string, readonly number[]>();

  private constructor(node: PatternNode, name: string) {
    const ends = this.#analyse(node);
    if (ends.nullable) throw unsupported(`the pattern ${JSON.stringify(name)}, which matches nothing at all`);
    this.#matcher = new RegExp(toSource(node), "gv");
    const plain = (node.kind === "choice" ? node.items : [node]).filter(isPlain);
    if (plain.length > 0) this.#alone = new RegExp(`^(?:${plain.map(toSource).join("|")})$`, "v");
  }

  /** @throws SegueError TOKENIZER_UNSUPPORTED */
  static regex(source: string): Pattern {
    return new Pattern(parsePattern(source), source);
  }

  static literal(text: string): Pattern {
    return new Pattern(literal(text), text);
  }

  /** Of single characters. @param source a class of JavaScript's `v` mode */
  static characters(source: string): Pattern {
    return new Pattern({ kind: "set", source }, source);
  }

  /** Of the longest runs of characters of one class. @param sources classes of JavaScript's `v` mode */
  static runs(...sources: readonly string[]): Pattern {
    const items = sources.map((source) => ({
      kind: "repeat" as const,
      item: { kind: "set" as const, source },
      min: 1,
      max: Infinity,
      mode: "greedy" as const,
    }));
    return new Pattern({ kind: "choice", items }, sources.join(" "));
  }

  /** The matches when they follow each other without a gap from the text's begin to its end, which is the fastest to find out. */
  gapless(text: string): string[] | undefined {
    const matches: string[] = text.match(this.#matcher) ?? [];
    let length = 0;
    for (const match of matches) length += match.length;
    return length === text.length ? matches : undefined;
  }

  /** Calls back with the start and end of each match. */
  each(text: string, found: (start: number, end: number) => void): void {
    const matcher = this.#matcher;
    matcher.lastIndex = 0;
    for (let match = matcher.exec(text); match; match = matcher.exec(text)) found(match.index, match.index + match[0].length);
  }

  replace(text: string, content: string): string {
    return text.replace(this.#matcher, () => content);
  }

  /** Whether a match, or a look at its surroundings, may touch both of these neighbours. */
  joins(left: string, right: string): boolean {
    const followers = this.#leavesFor(right);
    return this.#leavesFor(left).some((leaf) => followers.some((next) => this.#follow[leaf]!.has(next)));
  }

  membership(character: string): Membership {
    if (this.#alone?.test(character)) return "always";
    return this.#leavesFor(character).length === 0 ? "never" : "maybe";
  }

  #leavesFor(character: string): readonly number[] {
    const known = this.#leavesOf.get(character);
    if (known) return known;
    const leaves = this.#leaves.flatMap((leaf, index) => (leaf.test(character) ? [index] : []));
    if (this.#leavesOf.size > 4096) this.#leavesOf.clear();
    this.#leavesOf.set(character, leaves);
    return leaves;
  }

  /** Glushkov's construction; looks count as if their characters were matched between what stands before and after them. */
  #analyse(node: PatternNode): Ends {
    switch (node.kind) {
      case "set": {
        const leaf = this.#leaves.push(new RegExp(`^${node.source}$`, "v")) - 1;
        this.#follow.push(new Set());
        return { nullable: false, first: [leaf], last: [leaf] };
      }
      case "choice": {
        const parts = node.items.map((item) => this.#analyse(item));
        return {
          nullable: parts.some(({ nullable }) => nullable),
          first: parts.flatMap(({ first }) => first),
          last: parts.flatMap(({ last }) => last),
        };
      }
      case "sequence": {
        let ends: Ends = { nullable: true, first: [], last: [] };
        for (const item of node.items) {
          const next = this.#analyse(item);
          this.#link(ends.last, next.first);
          ends = {
            nullable: ends.nullable && next.nullable,
            first: ends.nullable ? [...ends.first, ...next.first] : ends.first,
            last: next.nullable ? [...ends.last, ...next.last] : next.last,
          };
        }
        return ends;
      }
      case "repeat": {
        const ends = this.#analyse(node.item);
        if (node.max > 1) this.#link(ends.last, ends.first);
        return { ...ends, nullable: ends.nullable || node.min === 0 };
      }
      case "atomic":
        return this.#analyse(node.item);
      case "look": {
        const { first, last } = this.#analyse(node.item);
        return { nullable: true, first: node.ahead ? first : [], last: node.ahead ? [] : last };
      }
    }
  }

  #link(last: readonly number[], first: readonly number[]): void {
    for (const leaf of last) for (const next of first) this.#follow[leaf]!.add(next);
  }
}

/** Whether a pattern has no looks and never refuses to go back. */
function isPlain(node: PatternNode): boolean {
  switch (node.kind) {
    case "set":
      return true;
    case "sequence":
    case "choice":
      return node.items.every(isPlain);
    case "repeat":
      return node.mode !== "possessive" && isPlain(node.item);
    case "atomic":
    case "look":
      return false;
  }
}
