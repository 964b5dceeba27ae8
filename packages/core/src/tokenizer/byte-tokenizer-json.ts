import { addedTokens } from "./token-names.js";

/** Hugging Face writes a byte as a character that can be seen: printable Latin-1 as itself, the others from U+0100 on, in order. */
function byteCharacters(): string[] {
  let next = 0x100;
  const isPrintable = (byte: number): boolean => (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte <= 0xff && byte !== 0xad);
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(isPrintable(byte) ? byte : next++));
}

/**
 * The character that stands for the end token of a model on bytes: the one that the byte is by itself. A byte beyond ASCII is none.
 */
export function byteEndToken(eosId: number): string | undefined {
  return eosId < 0x80 ? String.fromCharCode(eosId) : undefined;
}

/**
 * The content of a `tokenizer.json` whose ids are the UTF-8 bytes of any text. The end token is a special token that reads as the character
 * that its byte is, so that every text that holds this character has the same ids as well.
 */
export function byteTokenizerJson(eosId: number): Record<string, unknown> {
  const end = byteEndToken(eosId);
  const vocab = Object.fromEntries(byteCharacters().map((name, byte) => [byte === eosId && end !== undefined ? end : name, byte]));
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens:
      end === undefined
        ? []
        : [{ id: eosId, content: end, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      ...{ type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null },
      ...{ fuse_unk: false, byte_fallback: false, ignore_merges: false, vocab, merges: [] },
    },
  };
}

/** Whether {@link byteTokenizerJson} made this, for any end token. */
export function isByteTokenizer(tokenizer: unknown): boolean {
  const [end = 0x80] = addedTokens(tokenizer).keys();
  return JSON.stringify(tokenizer) === JSON.stringify(byteTokenizerJson(end));
}
