import { flagOf, type JsonObject } from "../json.js";
import { invalid, unsupported } from "../unsupported.js";
import { mergeAll } from "./merge.js";
import type { Model } from "./model.js";
import { PairTable } from "./pair-table.js";
import { byteTokens, neighboursIn, readVocab } from "./vocab.js";

const encoder = new TextEncoder();

/** Byte pair encoding. @throws SegueError TOKENIZER_INVALID, TOKENIZER_UNSUPPORTED */
export function bpe(part: JsonObject): Model {
  if (typeof part["dropout"] === "number" && part["dropout"] > 0) throw unsupported("the model's dropout");
  const vocab = readVocab(part);
  const prefix = optionalText(part, "continuing_subword_prefix");
  const suffix = optionalText(part, "end_of_word_suffix");
  const unknown = unknownId(part, vocab);
  const fusesUnknown = flagOf(part, "fuse_unk", false);
  const byteIds = flagOf(part, "byte_fallback", false) ? byteTokens(vocab) : undefined;
  const ignoresMerges = flagOf(part, "ignore_merges", false);
  const { table, merged } = readMerges(part["merges"], vocab, prefix);
  let joined: Set<string> | undefined;

  /** The ids of a word's characters, unknown ones in the order in which the library puts them. */
  const symbols = (word: string): number[] => {
    const ids: number[] = [];
    let pending = false;
    const flush = (): void => {
      if (pending) ids.push(unknown!);
      pending = false;
    };
    for (let at = 0; at < word.length;) {
      const character = String.fromCodePoint(word.codePointAt(at)!);
      const first = at === 0;
      at += character.length;
      const symbol = `${first ? "" : prefix}${character}${at < word.length ? "" : suffix}`;
      const id = vocab.get(symbol);
      if (id !== undefined) {
        flush();
        ids.push(id);
        continue;
      }
      const bytes = byteIds && Array.from(encoder.encode(symbol), (byte) => byteIds[byte]);
      if (bytes?.every((byte) => byte !== undefined)) ids.push(...bytes);
      else if (unknown !== undefined) {
        if (!fusesUnknown) flush();
        pending = true;
      }
    }
    flush();
    return ids;
  };

  return {
    vocab,
    encode(word, out) {
      const whole = ignoresMerges ? vocab.get(word) : undefined;
      if (whole !== undefined) {
        out.push(whole);
        return 0;
      }
      const ids = symbols(word);
      const length = mergeAll(ids, table);
      for (let at = 0; at < length; at++) out.push(ids[at]!);
      return 0;
    },
    joins(left, right) {
      if (ignoresMerges || prefix !== "" || suffix !== "" || !vocab.has(left) || !vocab.has(right)) return true;
      joined ??= neighboursIn(merged);
      return joined.has(left + right);
    },
  };
}

function optionalText(part: JsonObject, key: string): string {
  const value = part[key] ?? "";
  if (typeof value !== "string") throw invalid(`its model's ${key} is no text`);
  return value;
}

function unknownId(part: JsonObject, vocab: ReadonlyMap<string, number>): number | undefined {
  const token = part["unk_token"];
  if (token === null || token === undefined) return undefined;
  const id = typeof token === "string" ? vocab.get(token) : undefined;
  if (id === undefined) throw invalid(`its unk_token ${JSON.stringify(token)} is not in its vocabulary`);
  return id;
}

function readMerges(value: unknown, vocab: ReadonlyMap<string, number>, prefix: string): { table: PairTable; merged: Set<string> } {
  if (!Array.isArray(value)) throw invalid("its model has no merges");
  const merges = value.filter((merge) => typeof merge !== "string" || !merge.startsWith("#version"));
  const table = new PairTable(merges.length);
  const merged = new Set<string>();
  merges.forEach((merge: unknown, rank) => {
    const pair: unknown[] = typeof merge === "string" ? merge.split(" ") : Array.isArray(merge) ? merge : [];
    const [left, right] = pair;
    if (pair.length !== 2 || typeof left !== "string" || typeof right !== "string") throw invalid(`its merge ${rank} is no pair`);
    const together = left + right.slice(prefix.length);
    const [a, b, id] = [vocab.get(left), vocab.get(right), vocab.get(together)];
    if (a === undefined || b === undefined || id === undefined) throw invalid(`its merge ${rank} is not in its vocabulary`);
    table.set(a, b, rank, id);
    merged.add(together);
  });
  return { table, merged };
}
