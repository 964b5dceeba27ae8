import { bytesOfToken } from "./byte-characters.js";
import { flagOf, flatten, textOf, type JsonObject } from "./json.js";
import { patternOf } from "./normalizers.js";
import { unsupported } from "./unsupported.js";

type Step = (tokens: readonly string[]) => string[];

/** Turns tokens back into text. @throws SegueError TOKENIZER_INVALID, TOKENIZER_UNSUPPORTED */
export function createDecoder(value: unknown): (tokens: readonly string[]) => string {
  const steps = flatten(value, "decoder", "decoders").map(createStep);
  if (steps.length === 0) return (tokens) => tokens.join(" ");
  return (tokens) => steps.reduce((before, step) => step(before), [...tokens]).join("");
}

function createStep(part: JsonObject & { readonly type: string }): Step {
  switch (part.type) {
    case "ByteLevel":
      return byteLevel;
    case "ByteFallback":
      return byteFallback;
    case "Fuse":
      return (tokens) => [tokens.join("")];
    case "Metaspace":
      return metaspace(part);
    case "Replace": {
      const pattern = patternOf(part);
      const content = textOf(part, "content");
      return (tokens) => tokens.map((token) => pattern.replace(token, content));
    }
    case "Strip":
      return strip(part);
    case "WordPiece":
      return wordPiece(textOf(part, "prefix", "##"), flagOf(part, "cleanup", true));
    case "BPEDecoder": {
      const suffix = textOf(part, "suffix", "</w>");
      return (tokens) => tokens.map((token, at) => token.replaceAll(suffix, at === tokens.length - 1 ? "" : " "));
    }
    case "CTC":
      return ctc(part);
    default:
      throw unsupported(`the decoder ${part.type}`);
  }
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

const byteLevel: Step = (tokens) => {
  const bytes: number[] = [];
  for (const token of tokens) for (const byte of Array.from(bytesOfToken(token))) bytes.push(byte);
  return [decoder.decode(Uint8Array.from(bytes))];
};

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const byteFallback: Step = (tokens) => {
  const out: string[] = [];
  let bytes: number[] = [];
  const flush = (): void => {
    try {
      if (bytes.length > 0) out.push(strict.decode(Uint8Array.from(bytes)));
    } catch {
      for (let at = 0; at < bytes.length; at++) out.push("\uFFFD");
    }
    bytes = [];
  };
  for (const token of tokens) {
    const match = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
    if (match) bytes.push(Number.parseInt(match[1]!, 16));
    else {
      flush();
      out.push(token);
    }
  }
  flush();
  return out;
};

function metaspace(part: JsonObject): Step {
  const replacement = textOf(part, "replacement", "\u2581");
  const prefixed = flagOf(part, "add_prefix_space", true) && part["prepend_scheme"] !== "never";
  return (tokens) => tokens.map((token, at) => token.replaceAll(replacement, at === 0 && prefixed ? "" : " "));
}

function strip(part: JsonObject): Step {
  const content = textOf(part, "content");
  const [start, stop] = [Number(part["start"] ?? 0), Number(part["stop"] ?? 0)];
  return (tokens) =>
    tokens.map((token) => {
      const characters = Array.from(token);
      let [from, to] = [0, characters.length];
      while (from < start && from < to && characters[from] === content) from++;
      while (characters.length - to < stop && to > from && characters[to - 1] === content) to--;
      return characters.slice(from, to).join("");
    });
}

const CLEANED: readonly (readonly [string, string])[] = [
  [" .", "."],
  [" ?", "?"],
  [" !", "!"],
  [" ,", ","],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [" do not", " don't"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
];

const cleanUp = (text: string): string => CLEANED.reduce((before, [dirty, clean]) => before.replaceAll(dirty, clean), text);

function wordPiece(prefix: string, cleans: boolean): Step {
  return (tokens) =>
    tokens.map((token, at) => {
      const text = at === 0 ? token : token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`;
      return cleans ? cleanUp(text) : text;
    });
}

function ctc(part: JsonObject): Step {
  const [pad, delimiter] = [textOf(part, "pad_token", "<pad>"), textOf(part, "word_delimiter_token", "|")];
  const cleans = flagOf(part, "cleanup", true);
  return (tokens) =>
    tokens
      .filter((token, at) => token !== tokens[at - 1])
      .map((token) => token.replaceAll(pad, ""))
      .map((text) => (cleans ? cleanUp(text).replaceAll(delimiter, " ") : text))
      .filter((text) => text !== "");
}
