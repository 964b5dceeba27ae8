import { CharacterClass } from "./character-class.js";
import { choice, look, sequence, set, type PatternNode } from "./nodes.js";
import { unsupported } from "../unsupported.js";

const ANY = "[\\s\\S]";
const NOT_NEWLINE = "[^\\u{a}]";

/**
 * Reads a regular expression as Oniguruma does with Ruby's syntax, which is what the Python library uses.
 * @throws SegueError TOKENIZER_UNSUPPORTED naming what is not understood
 */
export function parsePattern(source: string): PatternNode {
  return new Parser(source).parse();
}

class Parser {
  readonly #text: string[];
  readonly #source: string;
  #at = 0;

  constructor(source: string) {
    this.#source = source;
    this.#text = Array.from(source);
  }

  parse(): PatternNode {
    const node = this.#choice(false);
    if (this.#at < this.#text.length) throw this.#refuse(`"${this.#text[this.#at]!}" at ${this.#at}`);
    return node;
  }

  #refuse(what: string): Error {
    return unsupported(`the pattern ${JSON.stringify(this.#source)} (${what})`);
  }

  #take(text: string): boolean {
    const characters = Array.from(text);
    if (!characters.every((character, index) => this.#text[this.#at + index] === character)) return false;
    this.#at += characters.length;
    return true;
  }

  #choice(ignoreCase: boolean): PatternNode {
    const items = [this.#sequence(ignoreCase)];
    while (this.#take("|")) items.push(this.#sequence(ignoreCase));
    return choice(items);
  }

  #sequence(ignoreCase: boolean): PatternNode {
    const items: PatternNode[] = [];
    const start = this.#at;
    while (this.#at < this.#text.length && this.#text[this.#at] !== "|" && this.#text[this.#at] !== ")") {
      if (this.#take("(?i)")) {
        // To the end of the group, all alternatives included.
        items.push(this.#choice(true));
        break;
      }
      items.push(this.#quantified(this.#atom(ignoreCase)));
    }
    // Two letters that one character may stand for, such as U+FB01 for "fi".
    if (ignoreCase && /s[st]|f[fil]/i.test(this.#text.slice(start, this.#at).join(""))) throw this.#refuse("ligatures");
    return sequence(items);
  }

  #quantified(node: PatternNode): PatternNode {
    let result = node;
    for (;;) {
      const counts = this.#counts();
      if (!counts) return result;
      const [min, max, braces] = counts;
      // After braces, Ruby's syntax takes "+" for another quantifier.
      const mode = this.#take("?") ? "lazy" : !braces && this.#take("+") ? "possessive" : "greedy";
      if (braces && mode === "lazy" && min === max) throw this.#refuse("a lazy exact count");
      result = { kind: "repeat", item: result, min, max, mode };
    }
  }

  #counts(): readonly [min: number, max: number, braces: boolean] | undefined {
    if (this.#take("*")) return [0, Infinity, false];
    if (this.#take("+")) return [1, Infinity, false];
    if (this.#take("?")) return [0, 1, false];
    if (this.#text[this.#at] !== "{") return undefined;
    const close = this.#text.indexOf("}", this.#at);
    const match = /^(\d*)(,?)(\d*)$/.exec(this.#text.slice(this.#at + 1, close).join(""));
    if (close < 0 || !match || (match[1] === "" && match[3] === "")) throw this.#refuse('a "{" that counts nothing');
    this.#at = close + 1;
    const min = Number(match[1]);
    return [min, match[2] === "" ? min : match[3] === "" ? Infinity : Number(match[3]), true];
  }

  #atom(ignoreCase: boolean): PatternNode {
    if (this.#take("(")) return this.#group(ignoreCase);
    if (this.#take("[")) {
      const { source, end } = new CharacterClass(this.#text, this.#at, ignoreCase, (what) => this.#refuse(what)).read();
      this.#at = end;
      return set(source);
    }
    if (this.#take(".")) return set(NOT_NEWLINE);
    if (this.#take("^")) return look(set(NOT_NEWLINE), false, true);
    if (this.#take("$")) return look(set(NOT_NEWLINE), true, true);
    if (this.#take("\\A")) return look(set(ANY), false, true);
    if (this.#take("\\z")) return look(set(ANY), true, true);
    if (this.#take("\\b")) return boundary(false);
    if (this.#take("\\B")) return boundary(true);
    const first = this.#text[this.#at]!;
    if (first === "*" || first === "+" || first === "?") throw this.#refuse(`a "${first}" that repeats nothing`);
    // Outside brackets a character or an escape means the same as alone within them.
    const one = new CharacterClass(this.#text, this.#at, ignoreCase, (what) => this.#refuse(what));
    const { source, end } = one.readOne();
    this.#at = end;
    return set(source);
  }

  #group(ignoreCase: boolean): PatternNode {
    const close = (node: PatternNode): PatternNode => {
      if (!this.#take(")")) throw this.#refuse("a group without end");
      return node;
    };
    if (this.#take("?:")) return close(this.#choice(ignoreCase));
    if (this.#take("?i:")) return close(this.#choice(true));
    if (this.#take("?-i:")) return close(this.#choice(false));
    if (this.#take("?=")) return close(look(this.#choice(ignoreCase), true, false));
    if (this.#take("?!")) return close(look(this.#choice(ignoreCase), true, true));
    if (this.#take("?<=")) return close(look(this.#choice(ignoreCase), false, false));
    if (this.#take("?<!")) return close(look(this.#choice(ignoreCase), false, true));
    if (this.#take("?>")) return close({ kind: "atomic", item: this.#choice(ignoreCase) });
    if (this.#text[this.#at] === "?") throw this.#refuse(`"(?${this.#text[this.#at + 1] ?? ""}"`);
    return close(this.#choice(ignoreCase));
  }
}

function boundary(negative: boolean): PatternNode {
  const word = set(`[${CharacterClass.WORD}]`);
  const side = (before: boolean, after: boolean): PatternNode => sequence([look(word, false, !before), look(word, true, !after)]);
  return negative ? choice([side(true, true), side(false, false)]) : choice([side(true, false), side(false, true)]);
}
