import { textOf, type JsonObject } from "../json.js";
import { invalid } from "../unsupported.js";
import type { Model } from "./model.js";
import { readVocab } from "./vocab.js";

/** Words from the longest pieces at their begin, as BERT has them. @throws SegueError TOKENIZER_INVALID */
export function wordPiece(part: JsonObject): Model {
  const vocab = readVocab(part);
  const unknown = unknownId(part, vocab);
  const prefix = textOf(part, "continuing_subword_prefix");
  const most = part["max_input_chars_per_word"];
  if (typeof most !== "number") throw invalid("its model has no max_input_chars_per_word");
  const longest = [...vocab.keys()].reduce((length, token) => Math.max(length, token.length), 0);

  /** Appends the ids of a word's pieces; false: there are none for all of it. */
  const pieces = (word: string, out: number[]): boolean => {
    for (let start = 0; start < word.length;) {
      let end = Math.min(word.length, start + longest);
      let id: number | undefined;
      for (; end > start; end--) {
        id = vocab.get(start === 0 ? word.slice(0, end) : prefix + word.slice(start, end));
        if (id !== undefined) break;
      }
      if (id === undefined) return false;
      out.push(id);
      start = end;
    }
    return true;
  };

  return {
    vocab,
    encode(word, out) {
      const { length } = out;
      const fits = word.length <= most || Array.from(word).length <= most;
      if (!fits || !pieces(word, out)) {
        out.length = length;
        out.push(unknown());
      }
      return 0;
    },
    joins: () => true,
  };
}

/** Whole words. @throws SegueError TOKENIZER_INVALID */
export function wordLevel(part: JsonObject): Model {
  const vocab = readVocab(part);
  const unknown = unknownId(part, vocab);
  return {
    vocab,
    encode(word, out) {
      out.push(vocab.get(word) ?? unknown());
      return 0;
    },
    joins: () => true,
  };
}

function unknownId(part: JsonObject, vocab: ReadonlyMap<string, number>): () => number {
  const token = textOf(part, "unk_token");
  const id = vocab.get(token);
  return () => {
    if (id === undefined) throw invalid(`a word is not in its vocabulary, nor is its unk_token ${JSON.stringify(token)}`);
    return id;
  };
}
