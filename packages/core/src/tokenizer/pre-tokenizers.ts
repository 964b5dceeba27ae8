import { byteCharacters, toByteCharacters } from "./byte-characters.js";
import { flagOf, flatten, textOf, type JsonObject } from "./json.js";
import type { Neighbours } from "./normalizer.js";
import { patternOf } from "./normalizers.js";
import { Pattern } from "./pattern/pattern.js";
import { behaviorOf, Splitter } from "./split.js";
import { PUNCTUATION } from "./unicode-tables.js";
import { invalid, unsupported } from "./unsupported.js";

/** Where a piece of text stands. */
export interface Place {
  /** Whether it begins where its section does, rather than to go on from text that was cut off before. */
  readonly begins: boolean;
  /** Whether it begins where the document does. */
  readonly opens: boolean;
}

export interface PreTokenizer {
  split(piece: string, place: Place, out: string[]): void;
  /** What is done to every piece at last, apart so that words are looked up as they stand in the text. */
  readonly map: ((piece: string) => string) | undefined;
  /** What a cut between these neighbours means: undefined where the sides may depend on each other. */
  cut(between: Neighbours): Cut | undefined;
  /** Whether every piece gets a prefix. */
  readonly marksBegin: boolean;
}

/** The neighbours afterwards, and whether a piece surely ends between them. */
export interface Cut {
  readonly between: Neighbours;
  readonly parts: boolean;
}

/** @throws SegueError TOKENIZER_INVALID, TOKENIZER_UNSUPPORTED */
export function createPreTokenizers(value: unknown): PreTokenizer[] {
  return flatten(value, "pre_tokenizer", "pretokenizers").flatMap(createSteps);
}

const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
/** What Rust's regular expressions take for characters of words. */
const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u{200c}\\u{200d}";

function createSteps(part: JsonObject & { readonly type: string }): PreTokenizer[] {
  const characters = (source: string, behavior: string): PreTokenizer =>
    splitting(new Splitter(Pattern.characters(`[${source}]`), behaviorOf(behavior)));
  switch (part.type) {
    case "ByteLevel":
      return byteLevel(flagOf(part, "add_prefix_space", true), flagOf(part, "use_regex", true));
    case "Metaspace":
      return [metaspace(part)];
    case "Split":
      return [splitting(new Splitter(patternOf(part), behaviorOf(part["behavior"]), flagOf(part, "invert", false)))];
    case "Whitespace":
      return [splitting(new Splitter(Pattern.runs(`[${WORD}]`, `[^${WORD}\\p{White_Space}]`), "removed", true))];
    case "WhitespaceSplit":
      return [characters("\\p{White_Space}", "removed")];
    case "BertPreTokenizer":
      return [characters("\\p{White_Space}", "removed"), characters(PUNCTUATION, "isolated")];
    case "Punctuation":
      return [characters(PUNCTUATION, textOf(part, "behavior", "isolated"))];
    case "Digits":
      return [characters("\\p{N}", flagOf(part, "individual_digits", false) ? "isolated" : "contiguous")];
    case "CharDelimiterSplit":
      return [splitting(new Splitter(Pattern.literal(textOf(part, "delimiter")), "removed"))];
    default:
      throw unsupported(`the pre-tokenizer ${part.type}`);
  }
}

function splitting(splitter: Splitter): PreTokenizer {
  return {
    split: (piece, _place, out) => splitter.split(piece, out),
    map: undefined,
    cut: (between) => cutBySplitter(splitter, between),
    marksBegin: false,
  };
}

function cutBySplitter(splitter: Splitter, between: Neighbours): Cut | undefined {
  const pairs = between.left.flatMap((left) => between.right.map((right) => [left, right] as const));
  if (pairs.some(([left, right]) => splitter.joins(left, right))) return undefined;
  return { between, parts: pairs.every(([left, right]) => splitter.parts(left, right)) };
}

function byteLevel(prefixes: boolean, splits: boolean): PreTokenizer[] {
  const prefix: PreTokenizer = {
    split: (piece, { begins }, out) => void out.push(begins && !piece.startsWith(" ") ? ` ${piece}` : piece),
    map: undefined,
    cut: (between) => ({ between, parts: false }),
    marksBegin: true,
  };
  const bytes: PreTokenizer = {
    split: (piece, _place, out) => void out.push(piece),
    map: toByteCharacters,
    cut: ({ left, right }) => ({
      between: {
        left: left.map((character) => byteCharacters(character).at(-1)!),
        right: right.map((character) => byteCharacters(character)[0]!),
      },
      parts: false,
    }),
    marksBegin: false,
  };
  const split = splitting(new Splitter(Pattern.regex(GPT2), "isolated"));
  return [...(prefixes ? [prefix] : []), ...(splits ? [split] : []), bytes];
}

function metaspace(part: JsonObject): PreTokenizer {
  const replacement = textOf(part, "replacement", "\u2581");
  const adds = flagOf(part, "add_prefix_space", true);
  const scheme = adds ? textOf(part, "prepend_scheme", "always") : "never";
  if (scheme !== "always" && scheme !== "first" && scheme !== "never")
    throw invalid(`its prepend_scheme is ${JSON.stringify(scheme)}`);
  const splitter = flagOf(part, "split", true) ? new Splitter(Pattern.literal(replacement), "mergedwithnext") : undefined;
  const replaced = (character: string): string => (character === " " ? replacement : character);
  return {
    split(piece, { begins, opens }, out) {
      const text = piece.replaceAll(" ", replacement);
      const prefixes = scheme === "always" ? begins : scheme === "first" && opens;
      const whole = prefixes && !text.startsWith(replacement) ? replacement + text : text;
      if (splitter) splitter.split(whole, out);
      else out.push(whole);
    },
    map: undefined,
    cut({ left, right }) {
      const between = { left: left.map(replaced), right: right.map(replaced) };
      return splitter ? cutBySplitter(splitter, between) : { between, parts: false };
    },
    marksBegin: scheme === "always",
  };
}
