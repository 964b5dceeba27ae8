import { byteCharacters, toByteCharacters } from "./byte-characters.js";
import { charsmap } from "./charsmap.js";
import { flagOf, flatten, isObject, textOf, type JsonObject } from "./json.js";
import type { Neighbours, Normalizer } from "./normalizer.js";
import { Pattern } from "./pattern/pattern.js";
import { COMBINING_MARK, CONTROL, LEFT_WHOLE, NONSPACING_MARK } from "./unicode-tables.js";
import { invalid, unsupported } from "./unsupported.js";

/** @throws SegueError TOKENIZER_INVALID, TOKENIZER_UNSUPPORTED */
export function createNormalizer(value: unknown): Normalizer {
  const steps = flatten(value, "normalizer", "normalizers").map(createStep);
  return {
    apply: (text, edges) => steps.reduce((before, step) => (before === "" ? "" : step.apply(before, edges)), text),
    neighbours: (before) => steps.reduce<Neighbours | undefined>((now, step) => now && step.neighbours(now), before),
    marksBegin: steps.some(({ marksBegin }) => marksBegin),
  };
}

function createStep(part: JsonObject & { readonly type: string }): Normalizer {
  switch (part.type) {
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD":
      return composed(part.type);
    case "Lowercase":
      return byCharacter(lowercase, (character) => character.toLowerCase());
    case "StripAccents":
      return removing(COMBINING_MARK);
    case "Nmt":
      return inOrder([removing("\\u{1}-\\u{8}\\u{b}\\u{e}-\\u{1f}\\u{7f}\\u{8f}\\u{9f}"), replacing(NMT_SPACE, " ")]);
    case "BertNormalizer":
      return bert(part);
    case "Replace":
      return replace(part);
    case "Prepend":
      return prepend(textOf(part, "prepend"));
    case "Strip":
      return strip(flagOf(part, "strip_left", false), flagOf(part, "strip_right", false));
    case "ByteLevel":
      return byCharacter(toByteCharacters, byteCharacters);
    case "Precompiled":
      return charsmap(part["precompiled_charsmap"]);
    default:
      throw unsupported(`the normalizer ${part.type}`);
  }
}

/** Each character becomes others, whatever stands around it. */
function byCharacter(apply: (text: string) => string, one: (character: string) => string): Normalizer {
  return {
    apply,
    neighbours: ({ left, right }) => {
      const [before, after] = [
        left.map((character) => Array.from(one(character))),
        right.map((character) => Array.from(one(character))),
      ];
      if ([...before, ...after].some((characters) => characters.length === 0)) return undefined;
      return { left: before.map((characters) => characters.at(-1)!), right: after.map((characters) => characters[0]!) };
    },
    marksBegin: false,
  };
}

function replacing(characters: string, content: string): Normalizer {
  const pattern = new RegExp(`[${characters}]`, "gv");
  const apply = (text: string): string => text.replace(pattern, content);
  return byCharacter(apply, apply);
}

const removing = (characters: string): Normalizer => replacing(characters, "");

function inOrder(steps: readonly Normalizer[]): Normalizer {
  return {
    apply: (text, edges) => steps.reduce((before, step) => step.apply(before, edges), text),
    neighbours: (before) => steps.reduce<Neighbours | undefined>((now, step) => now && step.neighbours(now), before),
    marksBegin: false,
  };
}

const SIGMA = /\u03a3/g;

/** Sigma at the end of a word is no exception here, as it is to JavaScript. */
function lowercase(text: string): string {
  return text.replace(SIGMA, "\u03c3").toLowerCase();
}

const NMT_SPACE = "\\u{9}\\u{a}\\u{c}\\u{d}\\u{1680}\\u{200b}-\\u{200f}\\u{2028}\\u{2029}\\u{2581}\\u{feff}\\u{fffd}";

/** Characters that neither join what stands before them nor are changed by it, in any form. */
const INERT =
  /^[\t\n\r -~\u00a1-\u00a7\u00ab\u00b0\u00b6\u00b7\u00bb\u0410-\u044f\u05d0-\u05ea\u0e01-\u0e30\u2010-\u2015\u2018-\u201d\u3001-\u3029\u3041-\u3094\u30a1-\u30f4\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff5e]$|^[\u{1f300}-\u{1faff}]$/u;
const KEPT = new RegExp(`([${LEFT_WHOLE}]+)`, "v");

function composed(form: "NFC" | "NFD" | "NFKC" | "NFKD"): Normalizer {
  const apply = (text: string): string =>
    KEPT.test(text)
      ? text
          .split(KEPT)
          .map((part, index) => (index % 2 === 1 ? part : part.normalize(form)))
          .join("")
      : text.normalize(form);
  const step = byCharacter(apply, apply);
  return {
    ...step,
    neighbours: (before) =>
      [...before.left, ...before.right].every((character) => INERT.test(character)) ? step.neighbours(before) : undefined,
  };
}

const CHINESE =
  "\\u{4e00}-\\u{9fff}\\u{3400}-\\u{4dbf}\\u{20000}-\\u{2a6df}\\u{2a700}-\\u{2b73f}\\u{2b740}-\\u{2b81f}\\u{2b920}-\\u{2ceaf}" +
  "\\u{f900}-\\u{faff}\\u{2f800}-\\u{2fa1f}";

function bert(part: JsonObject): Normalizer {
  const lower = flagOf(part, "lowercase", true);
  const steps: Normalizer[] = [];
  if (flagOf(part, "clean_text", true)) steps.push(removing(`${CONTROL}\\u{fffd}`), replacing("\\p{White_Space}", " "));
  if (flagOf(part, "handle_chinese_chars", true)) {
    const pattern = new RegExp(`[${CHINESE}]`, "gv");
    const apart = (text: string): string => text.replace(pattern, " $& ");
    steps.push(byCharacter(apart, apart));
  }
  if (flagOf(part, "strip_accents", lower)) steps.push(composed("NFD"), removing(NONSPACING_MARK));
  if (lower) steps.push(byCharacter(lowercase, lowercase));
  return inOrder(steps);
}

/** The pattern of a `Replace` or `Split`. @throws SegueError TOKENIZER_INVALID, TOKENIZER_UNSUPPORTED */
export function patternOf(part: JsonObject): Pattern {
  const pattern = part["pattern"];
  if (isObject(pattern)) {
    if (typeof pattern["String"] === "string") return Pattern.literal(pattern["String"]);
    if (typeof pattern["Regex"] === "string") return Pattern.regex(pattern["Regex"]);
  }
  throw invalid(`its ${String(part["type"])} has no pattern`);
}

function replace(part: JsonObject): Normalizer {
  const pattern = patternOf(part);
  const content = textOf(part, "content");
  const characters = Array.from(content);
  const after = (character: string, replaced: string | undefined): readonly (string | undefined)[] => {
    const membership = pattern.membership(character);
    if (membership === "never") return [character];
    return membership === "always" ? [replaced] : [character, replaced];
  };
  return {
    apply: (text) => pattern.replace(text, content),
    neighbours: ({ left, right }) => {
      if (left.some((before) => right.some((next) => pattern.joins(before, next)))) return undefined;
      const now = {
        left: left.flatMap((character) => after(character, characters.at(-1))),
        right: right.flatMap((character) => after(character, characters[0])),
      };
      return [...now.left, ...now.right].includes(undefined) ? undefined : (now as Neighbours);
    },
    marksBegin: false,
  };
}

function prepend(content: string): Normalizer {
  return { apply: (text, { begins }) => (begins ? content + text : text), neighbours: (before) => before, marksBegin: true };
}

const SPACE = /^\p{White_Space}$/u;

/** White space of Unicode, of which JavaScript's own `trim` lacks U+0085 and has U+FEFF more. */
function strip(left: boolean, right: boolean): Normalizer {
  return {
    apply(text, { begins, ends }) {
      let [from, to] = [0, text.length];
      while (left && begins && from < to && SPACE.test(text[from]!)) from++;
      while (right && ends && to > from && SPACE.test(text[to - 1]!)) to--;
      return text.slice(from, to);
    },
    // Behind a character that is none, no run of white space reaches across the cut.
    neighbours: (before) => (before.left.some((character) => SPACE.test(character)) ? undefined : before),
    marksBegin: left,
  };
}
