import type { TokenizerSpec } from "../spec/job-spec.js";
import { isObject } from "./json.js";
import { Pipeline } from "./pipeline.js";
import { PieceStream, type TokenStream } from "./token-stream.js";
import { invalid } from "./unsupported.js";

export interface Tokenizer {
  /** One more than the largest token id. */
  readonly vocab: number;
  /** The token that ends each document. */
  readonly eosId: number;
  /**
   * Token ids of a whole text; nothing is added before or after.
   * @param continues whether the text goes on from another, so that no space is put before it where the tokenizer does that at a begin
   */
  encode(text: string, continues?: boolean): number[];
  /**
   * The same ids for a text of any length that arrives in parts.
   * @param piece characters that are encoded at once, or a few more
   */
  stream(piece?: number): TokenStream;
  /** Text of token ids, without special tokens; ids that form no character become U+FFFD. */
  decode(ids: readonly number[]): string;
}

/** UTF-8 bytes as tokens. Byte 0, which no text contains, ends a document unless another is chosen. */
export function byteTokenizer(eosId = 0): Tokenizer {
  const encoder = new TextEncoder();
  const decoder = new TextDecoder();
  const encode = (text: string): number[] => Array.from(encoder.encode(text));
  return {
    vocab: 256,
    eosId,
    encode,
    stream: () => ({ push: encode, end: () => [] }),
    decode: (ids) => decoder.decode(Uint8Array.from(ids)),
  };
}

export interface HuggingFaceTokenizerOptions {
  /** The content of `tokenizer_config.json`, which may name the end token. */
  readonly config?: unknown;
  /** The end token, when it is not to be found out. */
  readonly eosId?: number | undefined;
}

/** Names of the end token in the files of well-known models. */
const END_TOKENS = ["<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "[EOS]"];

/**
 * A tokenizer from the content of a Hugging Face `tokenizer.json`. Its ids are those of the Python library `tokenizers` without special
 * tokens added; `truncation`, `padding` and `post_processor` of the file play no part.
 * @throws SegueError TOKENIZER_INVALID when it is none, or has no end token that can be found out; TOKENIZER_UNSUPPORTED when it has a
 * part that Segue cannot compute exactly
 */
export function huggingFaceTokenizer(json: unknown, options: HuggingFaceTokenizerOptions = {}): Tokenizer {
  if (!isObject(json)) throw invalid("it has no model");
  const config = isObject(options.config) ? options.config : {};
  const pipeline = new Pipeline(json);
  const vocab = largest([...pipeline.model.vocab.values(), ...pipeline.added.map(({ id }) => id)]) + 1;
  if (vocab === 0) throw invalid("it has an empty vocabulary");
  const eosId = options.eosId ?? endTokenId(pipeline, config["eos_token"]);
  if (eosId === undefined) throw invalid("it names no end token; give tokenizer.eosId");
  if (eosId >= vocab) throw invalid(`tokenizer.eosId ${eosId} is not below its vocabulary, ${vocab}`);
  return {
    vocab,
    eosId,
    encode(text, continues = false) {
      const ids: number[] = [];
      if (text !== "") pipeline.encode(text, { opens: !continues, closes: true, from: 0 }, ids);
      return ids;
    },
    stream: (piece) => new PieceStream(pipeline, piece),
    decode: (ids) => pipeline.decode(ids),
  };
}

/**
 * The tokenizer of a job.
 * @param json content of the file that `spec.file` names, for kind huggingface
 * @throws SegueError TOKENIZER_INVALID
 */
export function createTokenizer(spec: TokenizerSpec, json?: unknown): Tokenizer {
  return spec.kind === "bytes" ? byteTokenizer(spec.eosId) : huggingFaceTokenizer(json, { eosId: spec.eosId });
}

function endTokenId({ added, model }: Pipeline, named: unknown): number | undefined {
  const name = isObject(named) ? named["content"] : named;
  const candidates = typeof name === "string" ? [name, ...END_TOKENS] : END_TOKENS;
  return candidates
    .map((token) => added.find(({ content }) => content === token)?.id ?? model.vocab.get(token))
    .find((id) => id !== undefined);
}

function largest(ids: readonly number[]): number {
  return ids.reduce((most, id) => Math.max(most, id), -1);
}
