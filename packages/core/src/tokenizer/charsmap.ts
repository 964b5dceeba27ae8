import type { Neighbours, Normalizer } from "./normalizer.js";
import { invalid } from "./unsupported.js";

/** What joins the character behind it to a grapheme; a map that changes one of these is not cut. */
const PREPENDED = ["\u0600", "\u0601", "\u0602", "\u0603", "\u0604", "\u0605", "\u06dd", "\u070f", "\u08e2", "\u{110bd}"];
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * SentencePiece's precompiled map from characters to characters, a double array with the texts behind it.
 * @param base64 `precompiled_charsmap` of a tokenizer.json
 * @throws SegueError TOKENIZER_INVALID
 */
export function charsmap(base64: unknown): Normalizer {
  const map = readMap(base64);
  const known = new Map<string, string | undefined>();
  const mapped = (text: string): string | undefined => {
    if (known.has(text)) return known.get(text);
    const found = map(text);
    if (known.size > 65536) known.clear();
    known.set(text, found);
    return found;
  };
  const grapheme = (text: string): string => {
    const whole = encoder.encode(text).length < 6 ? mapped(text) : undefined;
    return whole ?? Array.from(text, (character) => mapped(character) ?? character).join("");
  };
  const graphemes = new Intl.Segmenter("en", { granularity: "grapheme" });
  const cuttable = PREPENDED.every((character) => mapped(character) === undefined);
  const after = (character: string): string[] => Array.from(mapped(character) ?? character);
  return {
    apply(text) {
      let out = "";
      for (let at = 0; at < text.length;) {
        const end = simpleEnd(text, at);
        if (end > at) {
          for (let index = at; index < end; index++) out += mapped(text[index]!) ?? text[index]!;
          at = end;
          continue;
        }
        const next = complexEnd(text, at);
        for (const { segment } of graphemes.segment(text.slice(at, next))) out += grapheme(segment);
        at = next;
      }
      return out;
    },
    neighbours({ left, right }): Neighbours | undefined {
      if (!cuttable || ![...left, ...right].every((character) => isSimple(character.codePointAt(0)!))) return undefined;
      const [before, behind] = [left.map(after), right.map(after)];
      if ([...before, ...behind].some((characters) => characters.length === 0)) return undefined;
      return { left: before.map((characters) => characters.at(-1)!), right: behind.map((characters) => characters[0]!) };
    },
    marksBegin: false,
  };
}

/** Whether a character is a grapheme by itself, but for marks behind it and what is prepended to all: Latin, Chinese, Japanese. */
const isSimple = (code: number): boolean => (code < 0x300 ? code !== 0x0d : simpleRange(code));

const simpleRange = (code: number): boolean =>
  (code >= 0x2010 && code <= 0x2017) ||
  (code >= 0x3001 && code <= 0x3029) ||
  (code >= 0x3041 && code <= 0x3094) ||
  (code >= 0x30a1 && code <= 0x30fa) ||
  (code >= 0x3400 && code <= 0x4dbf) ||
  (code >= 0x4e00 && code <= 0x9fff);

/** Where characters that are graphemes by themselves end: the one before another character may be its base. */
function simpleEnd(text: string, from: number): number {
  let at = from;
  while (at < text.length && isSimple(text.charCodeAt(at))) at++;
  return at < text.length && at > from ? at - 1 : at;
}

/** The first place behind `from` where a grapheme surely ends: between two simple characters, or the text's end. */
function complexEnd(text: string, from: number): number {
  for (let at = from + 1; at < text.length; at++) {
    if (isSimple(text.charCodeAt(at - 1)) && isSimple(text.charCodeAt(at)) && at - 1 > from) return at;
  }
  return text.length;
}

/** @returns what the first entry that a text begins with stands for */
function readMap(base64: unknown): (text: string) => string | undefined {
  // Without a map the library keeps every text as it is.
  if (base64 === null || base64 === undefined || base64 === "") return () => undefined;
  const bytes = Uint8Array.from(typeof base64 === "string" ? atob(base64) : "", (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const size = bytes.length >= 4 ? view.getUint32(0, true) : NaN;
  if (!(size >= 4 && size % 4 === 0 && 4 + size <= bytes.length)) throw invalid("its precompiled_charsmap is damaged");
  const units = Uint32Array.from({ length: size / 4 }, (_, index) => view.getUint32(4 + 4 * index, true));
  const texts = bytes.subarray(4 + size);
  const unitAt = (at: number): number => units[at] ?? 0;
  const offset = (unit: number): number => (unit >>> 10) << ((unit & (1 << 9)) >>> 6);
  return (text) => {
    let node = offset(unitAt(0));
    for (const byte of encoder.encode(text)) {
      if (byte === 0) break;
      node ^= byte;
      const unit = unitAt(node);
      if ((unit & 0x800000ff) >>> 0 !== byte) return undefined;
      node ^= offset(unit);
      if (((unit >>> 8) & 1) === 1) {
        const start = unitAt(node) & 0x7fffffff;
        const end = texts.indexOf(0, start);
        return decoder.decode(texts.subarray(start, end < 0 ? texts.length : end));
      }
    }
    return undefined;
  };
}
