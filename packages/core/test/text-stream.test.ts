import assert from "node:assert/strict";
import { byteTokenizer, TextStream } from "@segue/core";

describe("TextStream", () => {
  const said = (text: string): string[] => {
    const tokenizer = byteTokenizer();
    const stream = new TextStream(tokenizer);
    return [...tokenizer.encode(text).map((token) => stream.push(token)), stream.end()];
  };

  it("says a character when its last byte is there", () => {
    assert.deepEqual(said("a\u00e9\u{1F600}"), ["a", "", "\u00e9", "", "", "", "\u{1F600}", ""]);
  });

  it("keeps the space of tokens whose text depends on the one before", () => {
    // As SentencePiece models decode: the text's first space is not shown.
    const words = ["_The", "_grass", "_is"];
    const stream = new TextStream({
      decode: (ids) =>
        ids
          .map((id) => words[id]!.replace("_", " "))
          .join("")
          .replace(/^ /, ""),
    });
    assert.equal([0, 1, 2].map((id) => stream.push(id)).join(""), "The grass is");
  });

  it("does not wait for ever for bytes that are no text", () => {
    const stream = new TextStream(byteTokenizer());
    const parts = Array.from({ length: 16 }, () => stream.push(0x80));
    assert.equal(parts.join("") + stream.end(), "\uFFFD".repeat(16));
  });
});
