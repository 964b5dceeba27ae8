import assert from "node:assert/strict";
import {
  byteTokenizerJson,
  folderTexts,
  huggingFaceTokenizer,
  isByteTokenizer,
  namedEndTokens,
  parameterLayout,
  parsePythonJson,
  tokenId,
  validateJobSpec,
  weightFiles,
} from "@segue/core";
import { TINY_TOKENIZER_JSON } from "./tokenizer.test.js";

const { model } = validateJobSpec({
  model: { layers: 2, dModel: 32, headDim: 16, dState: 16, tieEmbeddings: false },
  data: { passkey: {} },
  train: { steps: 1 },
}).spec;

describe("JSON as Python writes it", () => {
  it("has numbers that JSON has no words for, bare or in transformers 5's way, and leaves texts alone", () => {
    assert.deepEqual(parsePythonJson('{"limit": [0.0, Infinity], "low": -Infinity, "none": NaN, "deep": [{"a": Infinity}]}'), {
      ...{ limit: [0, Infinity], low: -Infinity, none: NaN },
      deep: [{ a: Infinity }],
    });
    assert.deepEqual(parsePythonJson('{"a": {"__float__": "-Infinity"}, "b": {"__float__": "1"}}'), {
      a: -Infinity,
      b: { __float__: "1" },
    });
    assert.deepEqual(parsePythonJson('["NaN, Infinity", "\\"Infinity", "\\\\", -Infinity]'), [
      ...["NaN, Infinity", '"Infinity', "\\"],
      -Infinity,
    ]);
    for (const text of ["{", "Infinit", "[InfinityNaN]", "[- Infinity]", '["Infinity]']) {
      assert.throws(() => parsePythonJson(text), SyntaxError, text);
    }
  });
});

describe("the end token of a folder", () => {
  const idOf = (name: string): number | undefined => ({ "</s>": 2, "<|end|>": 7 })[name];

  it("is what the first of the usual places names", () => {
    const files = {
      generationConfig: { eos_token_id: [5, 6, 5] },
      config: { eos_token_id: 4 },
      tokenizerConfig: { eos_token: { content: "<|end|>", special: true } },
      specialTokensMap: { eos_token: "</s>" },
    };
    assert.deepEqual(namedEndTokens(files, 10, idOf), [5, 6]);
    assert.deepEqual(namedEndTokens({ ...files, generationConfig: {} }, 10, idOf), [4]);
    assert.deepEqual(namedEndTokens({ ...files, generationConfig: undefined, config: { eos_token_id: null } }, 10, idOf), [7]);
    assert.deepEqual(namedEndTokens({ tokenizerConfig: { eos_token: "</s>" } }, 10, idOf), [2]);
    assert.deepEqual(namedEndTokens({ specialTokensMap: files.specialTokensMap }, 10, idOf), [2]);
    assert.deepEqual(namedEndTokens({ specialTokensMap: { eos_token: { content: "<|end|>" } } }, 10, idOf), [7]);
  });

  it("is none that the model does not have, and none where nothing is named", () => {
    assert.deepEqual(namedEndTokens({ generationConfig: { eos_token_id: [-1, 10, 1.5, 3] } }, 10, idOf), [3]);
    assert.deepEqual(namedEndTokens({ config: { eos_token_id: 50256 }, tokenizerConfig: { eos_token: "</s>" } }, 10, idOf), [2]);
    assert.deepEqual(namedEndTokens({ config: null, tokenizerConfig: { eos_token: "<unknown>" } }, 10, idOf), []);
  });

  it("has the id that an added token, a vocabulary or a list of pieces gives its name", () => {
    assert.equal(tokenId(TINY_TOKENIZER_JSON, "<|endoftext|>"), 6);
    assert.equal(tokenId(TINY_TOKENIZER_JSON, "ab"), 2);
    assert.equal(tokenId(TINY_TOKENIZER_JSON, "constructor"), undefined);
    const unigram = [
      ["<unk>", 0],
      ["</s>", -1.5],
    ];
    assert.equal(tokenId({ model: { type: "Unigram", vocab: unigram } }, "</s>"), 1);
    assert.equal(tokenId(undefined, "</s>"), undefined);
  });
});

describe("a byte model's tokenizer.json", () => {
  const texts = ["", "abcd", "\u0100 \u010a\n\0 \u00e9\u20ac\ud83d\ude00 <s>\r\n  x", "\u4e2d\u6587\t\u0000\u0000\n\n"];
  for (const eosId of [0, 10, 65, 127, 200, 255]) {
    it(`gives the bytes of any text and back, ended by ${eosId}`, () => {
      const json = byteTokenizerJson(eosId);
      assert.ok(isByteTokenizer(JSON.parse(JSON.stringify(json))));
      const tokenizer = huggingFaceTokenizer(json, { eosId });
      assert.equal(tokenizer.vocab, 256);
      for (const text of texts) assert.deepEqual(tokenizer.encode(text), [...new TextEncoder().encode(text)], JSON.stringify(text));
    });
  }

  it("is told from others", () => {
    assert.ok(!isByteTokenizer(TINY_TOKENIZER_JSON));
    assert.ok(!isByteTokenizer(undefined));
    assert.ok(!isByteTokenizer({ ...byteTokenizerJson(0), normalizer: { type: "NFC" } }));
  });
});

describe("the files of an exported folder", () => {
  const read = (files: Map<string, string>, name: string): unknown => JSON.parse(files.get(name)!);

  it("name class and end token of the tokenizer, and have one for bytes", () => {
    const bytes = folderTexts(model, 10, "f32");
    assert.deepEqual([...bytes.keys()].sort(), [
      "config.json",
      "generation_config.json",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    assert.deepEqual(read(bytes, "generation_config.json"), { bos_token_id: 10, eos_token_id: 10, pad_token_id: 10 });
    const named = { tokenizer_class: "PreTrainedTokenizerFast", clean_up_tokenization_spaces: false };
    assert.deepEqual(read(bytes, "tokenizer_config.json"), { ...named, eos_token: "\n" });
    // No character is the byte 200 alone: the config's end token must do.
    assert.deepEqual(read(folderTexts(model, 200, "f32"), "tokenizer_config.json"), named);
    const own = folderTexts(model, 6, "bf16", TINY_TOKENIZER_JSON);
    assert.deepEqual(read(own, "tokenizer_config.json"), { ...named, eos_token: "<|endoftext|>" });
    assert.ok(!own.has("tokenizer.json"));
    assert.equal((read(own, "config.json") as { dtype: string }).dtype, "bfloat16");
    assert.deepEqual(read(folderTexts(model, 2, "f32", TINY_TOKENIZER_JSON), "tokenizer_config.json"), named);
  });

  it("say nothing of time steps: without limits is what every version of transformers takes for granted", () => {
    assert.ok(!("time_step_limit" in (read(folderTexts(model, 0, "f32"), "config.json") as object)));
  });

  it("hold all weights once, in order, in files of the size asked for", () => {
    const { entries, size } = parameterLayout(model);
    assert.deepEqual(
      weightFiles(model, "f32", Infinity).files.map(({ name, first, end }) => ({ name, first, end })),
      [{ name: "model.safetensors", first: 0, end: size }],
    );
    assert.equal(weightFiles(model, "f32", 4 * size).files.length, 1);
    for (const [dtype, bytesEach] of [["f32", 4] as const, ["bf16", 2] as const]) {
      for (const most of [1, 3000, 20_000, 4 * size - 1]) {
        const { files, index } = weightFiles(model, dtype, most);
        files.forEach(({ first, end }, at) => {
          assert.equal(first, files[at - 1]?.end ?? 0);
          const tensors = entries.filter(({ offset }) => offset >= first && offset < end);
          assert.ok(tensors.length === 1 || bytesEach * (end - first) <= most, `${end - first} in one of ${most} bytes`);
        });
        assert.equal(files.at(-1)!.end, size);
        if (files.length === 1) continue;
        const { metadata, weight_map } = JSON.parse(index!) as { metadata: object; weight_map: Record<string, string> };
        assert.deepEqual(metadata, { total_parameters: size, total_size: bytesEach * size });
        for (const { name, offset } of entries) {
          assert.equal(weight_map[name], files.find(({ first, end }) => offset >= first && offset < end)!.name);
        }
        assert.match(files[0]!.name, /^model-00001-of-000\d\d\.safetensors$/);
      }
    }
  });
});
