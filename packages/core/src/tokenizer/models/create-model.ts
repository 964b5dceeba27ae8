import { isObject, partOf } from "../json.js";
import { invalid, unsupported } from "../unsupported.js";
import { bpe } from "./bpe.js";
import type { Model } from "./model.js";
import { unigram } from "./unigram.js";
import { wordLevel, wordPiece } from "./words.js";

/** @throws SegueError TOKENIZER_INVALID, TOKENIZER_UNSUPPORTED */
export function createModel(value: unknown): Model {
  const part = partOf(isObject(value) ? { type: guessType(value), ...value } : value, "model");
  if (!part) throw invalid("it has no model");
  switch (part.type) {
    case "BPE":
      return bpe(part);
    case "Unigram":
      return unigram(part);
    case "WordPiece":
      return wordPiece(part);
    case "WordLevel":
      return wordLevel(part);
    default:
      throw unsupported(`the model ${JSON.stringify(part.type)}`);
  }
}

/** Old files do not say of what type their model is. */
function guessType(model: Readonly<Record<string, unknown>>): string | undefined {
  if (Array.isArray(model["merges"])) return "BPE";
  if (Array.isArray(model["vocab"])) return "Unigram";
  if (model["continuing_subword_prefix"] !== undefined && isObject(model["vocab"])) return "WordPiece";
  return isObject(model["vocab"]) ? "WordLevel" : undefined;
}
