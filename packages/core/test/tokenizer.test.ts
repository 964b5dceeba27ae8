import assert from "node:assert/strict";
import { byteTokenizer, createTokenizer, huggingFaceTokenizer } from "@segue/core";

/** A byte-level BPE as GPT-NeoX's tokenizer.json has it, with six tokens. */
export const TINY_TOKENIZER_JSON = {
  version: "1.0",
  added_tokens: [
    { id: 6, content: "<|endoftext|>", single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
  ],
  normalizer: null,
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  post_processor: null,
  decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: {
    type: "BPE",
    unk_token: null,
    fuse_unk: false,
    vocab: { a: 0, b: 1, ab: 2, "\u0120": 3, "\u0120ab": 4, "\u0120a": 5 },
    merges: ["\u0120 a", "a b"],
  },
};

describe("byteTokenizer", () => {
  it("turns text into UTF-8 bytes and back", () => {
    const tokenizer = byteTokenizer();
    assert.deepEqual([tokenizer.vocab, tokenizer.eosId], [256, 0]);
    assert.deepEqual(tokenizer.encode("a\u00e9"), [97, 0xc3, 0xa9]);
    assert.equal(tokenizer.decode(tokenizer.encode("\u00fcber \ud83d\ude00")), "\u00fcber \ud83d\ude00");
    assert.equal(tokenizer.decode([97, 0xc3]), "a\ufffd");
    assert.equal(createTokenizer({ kind: "bytes", eosId: 10 }).eosId, 10);
  });
});

describe("huggingFaceTokenizer", () => {
  it("encodes without adding tokens and finds vocabulary and end token", () => {
    const tokenizer = huggingFaceTokenizer(TINY_TOKENIZER_JSON);
    assert.deepEqual([tokenizer.vocab, tokenizer.eosId], [7, 6]);
    assert.deepEqual(tokenizer.encode("ab a"), [2, 5]);
    assert.equal(tokenizer.decode([2, 5, 6]), "ab a");
    assert.equal(tokenizer.decode([]), "");
  });

  it("takes the end token from the config or from the caller", () => {
    assert.equal(huggingFaceTokenizer(TINY_TOKENIZER_JSON, { config: { eos_token: "b" } }).eosId, 1);
    assert.equal(huggingFaceTokenizer(TINY_TOKENIZER_JSON, { config: { eos_token: { content: "a" } } }).eosId, 0);
    assert.equal(huggingFaceTokenizer(TINY_TOKENIZER_JSON, { eosId: 2 }).eosId, 2);
  });

  it("refuses what is no tokenizer and an end token that does not exist", () => {
    assert.throws(() => huggingFaceTokenizer([]), { code: "TOKENIZER_INVALID" });
    assert.throws(() => huggingFaceTokenizer({ model: {} }), { code: "TOKENIZER_INVALID" });
    assert.throws(() => huggingFaceTokenizer({ model: { type: "Nonsense" } }), { code: "TOKENIZER_UNSUPPORTED" });
    assert.throws(() => huggingFaceTokenizer({ ...TINY_TOKENIZER_JSON, added_tokens: [] }), /names no end token/);
    assert.throws(() => huggingFaceTokenizer(TINY_TOKENIZER_JSON, { eosId: 7 }), /not below its vocabulary, 7/);
  });
});
