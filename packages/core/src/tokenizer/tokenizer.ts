import { Tokenizer as TokenizerClass } from "@huggingface/tokenizers";
import { SegueError } from "../errors.js";
import type { TokenizerSpec } from "../spec/job-spec.js";

export interface Tokenizer {
  /** One more than the largest token id. */
  readonly vocab: number;
  /** The token that ends each document. */
  readonly eosId: number;
  /** Token ids of a text; nothing is added before or after. */
  encode(text: string): number[];
  /** Text of token ids, without special tokens; ids that form no character become U+FFFD. */
  decode(ids: readonly number[]): string;
}

/** UTF-8 bytes as tokens. Byte 0, which no text contains, ends a document unless another is chosen. */
export function byteTokenizer(eosId = 0): Tokenizer {
  const encoder = new TextEncoder();
  const decoder = new TextDecoder();
  return {
    vocab: 256,
    eosId,
    encode: (text) => Array.from(encoder.encode(text)),
    decode: (ids) => decoder.decode(Uint8Array.from(ids)),
  };
}

export interface HuggingFaceTokenizerOptions {
  /** The content of `tokenizer_config.json`, which may name the end token. */
  readonly config?: unknown;
  /** The end token, when it is not to be found out. */
  readonly eosId?: number | undefined;
}

/** What is used of the library, whose own declarations do not resolve for ECMAScript modules. */
interface LibraryTokenizer {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  decode(ids: number[], options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean }): string;
  token_to_id(token: string): number | undefined;
  get_vocab(withAddedTokens: boolean): Map<string, number>;
  get_added_tokens_decoder(): Map<number, unknown>;
}
const LibraryTokenizer = TokenizerClass as unknown as new (json: object, config: object) => LibraryTokenizer;

/** Names of the end token in the files of well-known models. */
const END_TOKENS = ["<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "[EOS]"];

/**
 * A tokenizer from the content of a Hugging Face `tokenizer.json`.
 * @throws SegueError TOKENIZER_INVALID when it is none, or has no end token that can be found out
 */
export function huggingFaceTokenizer(json: unknown, options: HuggingFaceTokenizerOptions = {}): Tokenizer {
  const config = isRecord(options.config) ? options.config : {};
  const inner = load(json, config);
  const ids = [...inner.get_vocab(true).values(), ...inner.get_added_tokens_decoder().keys()];
  const vocab = ids.reduce((largest, id) => Math.max(largest, id), -1) + 1;
  if (vocab === 0) throw invalid("it has an empty vocabulary");
  const eosId = options.eosId ?? endTokenId(inner, config["eos_token"]);
  if (eosId === undefined) throw invalid("it names no end token; give tokenizer.eosId");
  if (eosId >= vocab) throw invalid(`tokenizer.eosId ${eosId} is not below its vocabulary, ${vocab}`);
  return {
    vocab,
    eosId,
    encode: (text) => inner.encode(text, { add_special_tokens: false }).ids,
    decode: (tokens) => inner.decode([...tokens], { skip_special_tokens: true, clean_up_tokenization_spaces: false }),
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

function load(json: unknown, config: Record<string, unknown>): LibraryTokenizer {
  if (!isRecord(json) || !isRecord(json["model"])) throw invalid("it has no model");
  try {
    return new LibraryTokenizer(json, config);
  } catch (cause) {
    throw invalid(cause instanceof Error ? cause.message : String(cause), cause);
  }
}

function endTokenId(inner: LibraryTokenizer, named: unknown): number | undefined {
  const name = isRecord(named) ? named["content"] : named;
  const candidates = typeof name === "string" ? [name, ...END_TOKENS] : END_TOKENS;
  return candidates.map((token) => inner.token_to_id(token)).find((id) => id !== undefined);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function invalid(reason: string, cause?: unknown): SegueError {
  return new SegueError("TOKENIZER_INVALID", `Not a usable tokenizer.json: ${reason}.`, { cause });
}
