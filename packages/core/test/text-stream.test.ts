import assert from "node:assert/strict";
import { byteTokenizer, textPieces, TextStream } from "@segue/core";

async function* chunks(text: string, size: number): AsyncGenerator<string> {
  await Promise.resolve();
  for (let at = 0; at < text.length; at += size) yield text.slice(at, at + size);
}

async function pieces(text: string, size: number, most: number): Promise<string[]> {
  const found: string[] = [];
  for await (const piece of textPieces(chunks(text, size), most)) found.push(piece);
  return found;
}

describe("textPieces", () => {
  it("cuts before a space between words, the same wherever the text comes in parts", async () => {
    const text = "one two  three\n four five ".repeat(9);
    const found = await pieces(text, 7, 20);
    assert.equal(found.join(""), text);
    assert.ok(found.every((piece) => piece.length <= 20));
    assert.ok(found.slice(1).every((piece) => /^ \S/.test(piece)));
    for (const size of [1, 13, 1000]) assert.deepEqual(await pieces(text, size, 20), found);
  });

  it("cuts a text without spaces between characters", async () => {
    const found = await pieces("\u{1F600}".repeat(20), 5, 7);
    assert.equal(found.join(""), "\u{1F600}".repeat(20));
    assert.ok(found.every((piece) => piece.length % 2 === 0));
  });
});

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
