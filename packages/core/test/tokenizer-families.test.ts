import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { huggingFaceTokenizer, type Tokenizer } from "@segue/core";

/** Ids that the Python library gave; made by scripts/tokenizers/make-fixtures.py. */
interface Family {
  readonly tokenizer: object;
  readonly ids: Readonly<Record<string, number[]>>;
  readonly decoded: Readonly<Record<string, string>>;
}

const FOLDER = new URL("../../../test/fixtures/tokenizers/", import.meta.url);
const read = (name: string): unknown => JSON.parse(readFileSync(new URL(name, FOLDER), "utf8"));
const texts = read("texts.json") as Record<string, string>;
const names = readdirSync(FOLDER)
  .filter((name) => name !== "texts.json")
  .map((name) => name.replace(".json", ""));
const families = new Map(names.map((name) => [name, read(`${name}.json`) as Family]));
const tokenizers = new Map(
  [...families].map(([name, { tokenizer }]) => [name, huggingFaceTokenizer(tokenizer, { eosId: 0 })] as const),
);

function streamed(tokenizer: Tokenizer, parts: readonly string[], piece: number): number[] {
  const stream = tokenizer.stream(piece);
  return [...parts.flatMap((part) => stream.push(part)), ...stream.end()];
}

describe("tokenizers of the families of public models", () => {
  for (const [name, { ids, decoded }] of families) {
    it(`${name}: gives the ids of the Python library, and its text back`, () => {
      const tokenizer = tokenizers.get(name)!;
      for (const [text, expected] of Object.entries(ids)) {
        assert.deepEqual(tokenizer.encode(texts[text]!), expected, text);
        assert.deepEqual(streamed(tokenizer, Array.from(texts[text]!), 1), expected, `${text}, character by character`);
        if (decoded[text] !== undefined) assert.equal(tokenizer.decode(expected), decoded[text], text);
      }
    });
  }

  it("give the ids of the whole for random texts in random parts", () => {
    const whole = Object.values(texts).join("");
    const excerpt = fc
      .tuple(fc.nat({ max: whole.length }), fc.integer({ min: 1, max: 40 }))
      .map(([from, length]) => whole.slice(from, from + length).replace(/\p{Surrogate}/gu, ""));
    const odd = fc.constantFrom(
      " ",
      "\n",
      "\r\n",
      "   ",
      ".",
      "\u0085",
      "\u3000",
      "\u0301",
      "e\u0301",
      "\u1112\u1161",
      "\u3099",
      "が",
    );
    const more = fc.constantFrom("<|endoftext|>", "<mask>", " <mask> ", "</s>", "the", "café", "▁", "\u200d", "\ufeff", "ﬁ", "中");
    const part = fc.oneof({ weight: 3, arbitrary: excerpt }, odd, more, fc.string({ unit: "grapheme", maxLength: 3 }));
    fc.assert(
      fc.property(
        fc.constantFrom(...names),
        fc.array(part, { minLength: 1, maxLength: 40 }),
        fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 8 }),
        fc.constantFrom(1, 2, 5, 30, 200),
        (name, words, sizes, piece) => {
          const text = words.join("");
          const parts: string[] = [];
          for (let at = 0; at < text.length; at += sizes[(parts.length - 1) % sizes.length]!) {
            parts.push(text.slice(at, at + sizes[parts.length % sizes.length]!));
          }
          assert.equal(parts.join(""), text);
          const tokenizer = tokenizers.get(name)!;
          assert.deepEqual(streamed(tokenizer, parts, piece), tokenizer.encode(text), name);
        },
      ),
      { numRuns: 1500, seed: 20261129 },
    );
  });

  it("cut a long text before its end, in every family", () => {
    const text = (texts["prose"]! + texts["code"]! + texts["crlf"]! + texts["chinese"]!).repeat(20);
    for (const [name, tokenizer] of tokenizers) {
      const stream = tokenizer.stream();
      const first = stream.push(text.repeat(2));
      assert.ok(first.length > 1000, `${name} keeps everything until the end`);
    }
  });

  it("take a million spaces, or characters without one, and go on behind them", () => {
    for (const name of ["llama3", "llama2", "gpt2", "mistral", "gemma", "xlm-roberta", "bert-uncased"]) {
      const times = name.startsWith("llama") ? 1_000_000 : 50_000;
      const runs = [`a${" ".repeat(times)}b.`, `${"天地玄黃宇宙洪荒".repeat(times / 25)}. End`, `x${"\n".repeat(times / 5)} y`];
      const tokenizer = tokenizers.get(name)!;
      for (const run of runs) {
        const parts = run.match(/[^]{1,65536}/gu)!;
        const [found, expected] = [streamed(tokenizer, parts, 8192), tokenizer.encode(run)];
        // Comparing half a million ids one by one is much faster than a deep comparison.
        assert.ok(found.length === expected.length && found.every((id, at) => id === expected[at]), name);
      }
    }
  });

  it("refuse a text that has no place to cut it for longer than can be kept", () => {
    const stream = tokenizers.get("gpt2")!.stream();
    const push = (): void => {
      for (let times = 0; times < 5; times++) stream.push("a".repeat(1 << 20));
    };
    assert.throws(push, { code: "TEXT_UNBROKEN" });
  });
});

describe("what would not surely give the Python library's ids", () => {
  const { tokenizer } = families.get("gpt2")! as { tokenizer: Record<string, unknown> };
  const model = tokenizer["model"] as object;
  const refused = (change: object, named: RegExp): void => {
    assert.throws(
      () => huggingFaceTokenizer({ ...tokenizer, ...change }, { eosId: 0 }),
      (error: Error & { code: string }) => {
        assert.equal(error.code, "TOKENIZER_UNSUPPORTED");
        assert.match(error.message, named);
        return true;
      },
    );
  };

  it("is refused by its name", () => {
    refused({ normalizer: { type: "Magic" } }, /the normalizer Magic/);
    refused({ normalizer: { type: "Sequence", normalizers: [{ type: "NFC" }, { type: "Other" }] } }, /the normalizer Other/);
    refused({ pre_tokenizer: { type: "UnicodeScripts" } }, /the pre-tokenizer UnicodeScripts/);
    refused({ pre_tokenizer: { type: "FixedLength", length: 5 } }, /the pre-tokenizer FixedLength/);
    refused({ decoder: { type: "Magic" } }, /the decoder Magic/);
    refused({ model: { ...model, dropout: 0.1 } }, /the model's dropout/);
    refused({ model: { ...model, type: "Magic" } }, /the model "Magic"/);
  });

  it("names the part of a pattern that is not understood", () => {
    const split = (Regex: string): object => ({
      pre_tokenizer: { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false },
    });
    for (const pattern of [
      "a\\Kb",
      "(a)\\1",
      "(?x) a",
      "a*",
      "(?=b)",
      "\\p{Nonsense}",
      "(?i:ß)",
      "(?i:ss)",
      "[a",
      "(a",
      "\\X",
      "a{",
    ]) {
      refused(split(pattern), /the pattern "/);
    }
  });
});
