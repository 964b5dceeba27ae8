import { isObject, type JsonObject } from "../json.js";
import { invalid } from "../unsupported.js";

/** The vocabulary of a model that maps tokens to ids. @throws SegueError TOKENIZER_INVALID */
export function readVocab(part: JsonObject): Map<string, number> {
  const value = part["vocab"];
  if (!isObject(value)) throw invalid("its model has no vocabulary");
  const vocab = new Map<string, number>();
  for (const [token, id] of Object.entries(value)) vocab.set(token, readId(token, id));
  return vocab;
}

function readId(token: string, id: unknown): number {
  if (typeof id === "number" && Number.isInteger(id) && id >= 0 && id < 2 ** 31) return id;
  throw invalid(`the token ${JSON.stringify(token)} has the id ${JSON.stringify(id)}`);
}

/** All pairs of neighbours within these tokens. */
export function neighboursIn(tokens: Iterable<string>): Set<string> {
  const pairs = new Set<string>();
  for (const token of tokens) {
    let before = "";
    for (const character of token) {
      if (before !== "") pairs.add(before + character);
      before = character;
    }
  }
  return pairs;
}

/** Ids of the tokens "<0x00>" to "<0xFF>". */
export function byteTokens(vocab: ReadonlyMap<string, number>): (number | undefined)[] {
  return Array.from({ length: 256 }, (_, byte) => vocab.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`));
}
