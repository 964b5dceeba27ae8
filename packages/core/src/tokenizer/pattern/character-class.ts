import { escaped } from "./nodes.js";

/** Unicode's word characters as Oniguruma has them, for use within a class. */
const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u{b2}\\u{b3}\\u{b9}\\u{bc}-\\u{be}";

const ESCAPED_SETS: Readonly<Record<string, string>> = {
  s: "\\p{White_Space}",
  S: "\\P{White_Space}",
  d: "\\p{Nd}",
  D: "\\P{Nd}",
  w: `[${WORD}]`,
  W: `[^${WORD}]`,
  h: "[0-9a-fA-F]",
  H: "[^0-9a-fA-F]",
};
const CONTROLS: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t", f: "\f", v: "\v", a: "\x07", e: "\x1b" };
const POSIX: Readonly<Record<string, string>> = {
  alpha: "\\p{Alphabetic}",
  alnum: "\\p{Alphabetic}\\p{Nd}",
  digit: "\\p{Nd}",
  lower: "\\p{Lowercase}",
  upper: "\\p{Uppercase}",
  space: "\\p{White_Space}",
  word: WORD,
  xdigit: "0-9a-fA-F",
};
/** What else a letter stands for when case is ignored. */
const FOLDED: Readonly<Record<string, string>> = { k: "\u212a", s: "\u017f" };

type Refuse = (what: string) => Error;

/** Reads what stands between brackets in Ruby's syntax, as a class of JavaScript's `v` mode. */
export class CharacterClass {
  static readonly WORD = WORD;
  readonly #text: readonly string[];
  readonly #ignoreCase: boolean;
  readonly #refuse: Refuse;
  #at: number;

  /** @param at behind the opening bracket, or for {@link readOne} at the character */
  constructor(text: readonly string[], at: number, ignoreCase: boolean, refuse: Refuse) {
    this.#text = text;
    this.#at = at;
    this.#ignoreCase = ignoreCase;
    this.#refuse = refuse;
  }

  read(): { source: string; end: number } {
    const negated = this.#text[this.#at] === "^";
    if (negated) this.#at++;
    const operands: string[] = [];
    let operand = "";
    for (let first = true; ; first = false) {
      const character = this.#text[this.#at];
      if (character === undefined) throw this.#refuse("a bracket without end");
      if (character === "]" && !first) break;
      if (character === "&" && this.#text[this.#at + 1] === "&") {
        this.#at += 2;
        operands.push(operand);
        operand = "";
      } else operand += this.#item();
    }
    this.#at++;
    operands.push(operand);
    if (operands.includes("")) throw this.#refuse("an empty bracket");
    const inner = operands.length === 1 ? operand : operands.map((part) => `[${part}]`).join("&&");
    return { source: `[${negated ? "^" : ""}${inner}]`, end: this.#at };
  }

  /** One character or escape. */
  readOne(): { source: string; end: number } {
    const one = this.#character();
    return { source: `[${typeof one === "string" ? this.#folded(one) : one.set}]`, end: this.#at };
  }

  #item(): string {
    if (this.#text[this.#at] === "[") return this.#nested();
    const from = this.#character();
    if (typeof from !== "string") return from.set;
    const [dash, next] = [this.#text[this.#at], this.#text[this.#at + 1]];
    if (dash !== "-" || next === "]" || next === undefined) return this.#folded(from);
    this.#at++;
    const to = this.#text[this.#at] === "[" ? undefined : this.#character();
    if (typeof to !== "string") throw this.#refuse("a range to a set");
    if (this.#ignoreCase) throw this.#refuse("a range where case is ignored");
    return `${escaped(from)}-${escaped(to)}`;
  }

  #nested(): string {
    const posix = /^\[:(\^?)(\w+):\]/.exec(this.#text.slice(this.#at, this.#at + 16).join(""));
    if (posix) {
      const inner = POSIX[posix[2]!];
      if (inner === undefined || this.#ignoreCase) throw this.#refuse(posix[0]);
      this.#at += posix[0].length;
      return `[${posix[1]!}${inner}]`;
    }
    const { source, end } = new CharacterClass(this.#text, this.#at + 1, this.#ignoreCase, this.#refuse).read();
    this.#at = end;
    return source;
  }

  /** The character at hand, or the set that an escape stands for. */
  #character(): string | { readonly set: string } {
    const character = this.#text[this.#at++]!;
    if (character !== "\\") return character;
    const escape = this.#text[this.#at++];
    if (escape === undefined) throw this.#refuse('a "\\" at the end');
    if (escape === "p" || escape === "P") return { set: this.#property(escape) };
    if (escape === "x" || escape === "u") return this.#code(escape);
    const found = ESCAPED_SETS[escape];
    if (found !== undefined) {
      if (this.#ignoreCase) throw this.#refuse(`\\${escape} where case is ignored`);
      return { set: found };
    }
    if (CONTROLS[escape] !== undefined) return CONTROLS[escape];
    if (/[0-9A-Za-z]/.test(escape)) throw this.#refuse(`\\${escape}`);
    return escape;
  }

  #property(escape: string): string {
    const match = /^\{(\^?)([\w=]+)\}/.exec(this.#text.slice(this.#at, this.#at + 48).join(""));
    if (!match || this.#ignoreCase) throw this.#refuse(`\\${escape}`);
    this.#at += match[0].length;
    const negated = (escape === "P") !== (match[1] === "^");
    const name = match[2]!;
    const known = POSIX[name.toLowerCase()];
    if (known !== undefined) return `[${negated ? "^" : ""}${known}]`;
    const written = [name, `Script=${name}`].map((property) => `\\${negated ? "P" : "p"}{${property}}`).find(compiles);
    if (written === undefined) throw this.#refuse(`\\p{${name}}`);
    return written;
  }

  #code(escape: string): string {
    const rest = this.#text.slice(this.#at, this.#at + 12).join("");
    const match = (escape === "x" ? /^(?:\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{2}))/ : /^()([0-9A-Fa-f]{4})/).exec(rest);
    const code = Number.parseInt(match?.[1] || (match?.[2] ?? ""), 16);
    // "\xE9" is a byte to Oniguruma, not a character.
    if (!match || !(code <= 0x10ffff) || (escape === "x" && match[1] === undefined && code > 0x7f)) {
      throw this.#refuse(`\\${escape}`);
    }
    this.#at += match[0].length;
    return String.fromCodePoint(code);
  }

  /** The character and, where case is ignored, those that stand for it. */
  #folded(character: string): string {
    if (!this.#ignoreCase || !/\p{Cased}/u.test(character)) return escaped(character);
    if (!/[A-Za-z]/.test(character)) throw this.#refuse(`"${character}" where case is ignored`);
    const lower = character.toLowerCase();
    return [lower, character.toUpperCase(), FOLDED[lower] ?? lower].map(escaped).join("");
  }
}

function compiles(source: string): boolean {
  try {
    return new RegExp(source, "v") instanceof RegExp;
  } catch {
    return false;
  }
}
