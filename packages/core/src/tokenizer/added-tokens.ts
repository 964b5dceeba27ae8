import { isObject, flagOf, textOf } from "./json.js";
import type { Neighbours, Normalizer } from "./normalizer.js";
import { invalid } from "./unsupported.js";

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** The content as it is looked for: normalized, where the token is looked for in normalized text. */
  readonly pattern: string;
  readonly singleWord: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly normalized: boolean;
  readonly special: boolean;
}

/**
 * The added tokens of a tokenizer.json. As in the Python library, a token that the model has keeps the model's id, and others follow the
 * vocabulary; the ids in the file are not used.
 * @throws SegueError TOKENIZER_INVALID
 */
export function readAddedTokens(value: unknown, vocab: ReadonlyMap<string, number>, normalizer: Normalizer): AddedToken[] {
  if (value !== null && value !== undefined && !Array.isArray(value)) throw invalid("its added_tokens are no list");
  const tokens = new Map<string, AddedToken>();
  let next = vocab.size;
  for (const part of (value ?? []) as unknown[]) {
    if (!isObject(part)) throw invalid("one of its added_tokens is no object");
    const content = textOf(part, "content");
    if (content === "") continue;
    const special = flagOf(part, "special", false);
    const normalized = flagOf(part, "normalized", !special);
    const id = tokens.get(content)?.id ?? vocab.get(content) ?? next++;
    tokens.set(content, {
      id,
      content,
      pattern: normalized ? normalizer.apply(content, { begins: true, ends: true }) : content,
      singleWord: flagOf(part, "single_word", false),
      lstrip: flagOf(part, "lstrip", false),
      rstrip: flagOf(part, "rstrip", false),
      normalized,
      special,
    });
  }
  return [...tokens.values()];
}

/** A piece of text, or an added token in it. */
export type Section = string | AddedToken;

const WORD = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d]$/u;
const SPACE = /^\p{White_Space}$/u;

/** Finds some added tokens in texts: the leftmost first, and of those the longest. */
export class AddedTokenFinder {
  readonly #tokens = new Map<string, AddedToken>();
  readonly #matcher: RegExp | undefined;
  readonly #joined = new Set<string>();
  readonly #lasts = new Set<string>();
  readonly #lookers: { readonly first: string; readonly last: string }[] = [];
  readonly #strips: boolean;
  readonly #marksBegin: boolean;

  /** @param marksBegin whether the text behind a token is treated as a begin */
  constructor(tokens: readonly AddedToken[], marksBegin: boolean) {
    this.#marksBegin = marksBegin;
    this.#strips = tokens.some(({ lstrip, rstrip }) => lstrip || rstrip);
    for (const token of tokens) {
      const characters = Array.from(token.pattern);
      if (characters.length === 0)
        throw invalid(`its normalizer leaves nothing of the added token ${JSON.stringify(token.content)}`);
      this.#tokens.set(token.pattern, token);
      this.#lasts.add(characters.at(-1)!);
      for (let at = 1; at < characters.length; at++) this.#joined.add(characters[at - 1]! + characters[at]!);
      if (token.lstrip || token.rstrip || token.singleWord) {
        this.#lookers.push({ first: characters[0]!, last: characters.at(-1)! });
      }
    }
    if (tokens.length > 0) {
      const longestFirst = [...this.#tokens.keys()].sort((a, b) => b.length - a.length).map(escapeRegExp);
      this.#matcher = new RegExp(longestFirst.join("|"), "gu");
    }
  }

  /** The sections of a text in order. */
  split(text: string): Section[] {
    const matcher = this.#matcher;
    if (!matcher) return [text];
    const sections: Section[] = [];
    let from = 0;
    matcher.lastIndex = 0;
    for (let match = matcher.exec(text); match; match = matcher.exec(text)) {
      const token = this.#tokens.get(match[0])!;
      let [start, end] = [match.index, match.index + match[0].length];
      if (token.singleWord && (WORD.test(before(text, start)) || WORD.test(behind(text, end)))) continue;
      if (token.lstrip) {
        while (start > from && SPACE.test(text[start - 1]!)) start--;
        start = Math.max(start, from);
      }
      if (token.rstrip) while (end < text.length && SPACE.test(text[end]!)) end++;
      if (start > from) sections.push(text.slice(from, start));
      sections.push(token);
      from = end;
    }
    if (from < text.length) sections.push(text.slice(from));
    return sections;
  }

  /** Whether a token may reach from one of these neighbours to the other, or what it does may depend on both. */
  joins({ left, right }: Neighbours): boolean {
    if (!this.#matcher) return false;
    return left.some((before) => right.some((next) => this.#joinsPair(before, next)));
  }

  #joinsPair(left: string, right: string): boolean {
    if (this.#joined.has(left + right)) return true;
    // The text behind a token is a begin, the one behind a cut is not.
    if (this.#marksBegin && this.#lasts.has(left)) return true;
    if (this.#lookers.some(({ first, last }) => left === last || right === first)) return true;
    // A run of white space may belong to a token at its other end.
    return this.#strips && SPACE.test(left);
  }
}

function before(text: string, at: number): string {
  const low = text.charCodeAt(at - 1);
  return text.slice(at - (low >= 0xdc00 && low <= 0xdfff ? 2 : 1), at);
}

function behind(text: string, at: number): string {
  return at < text.length ? String.fromCodePoint(text.codePointAt(at)!) : "";
}

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
