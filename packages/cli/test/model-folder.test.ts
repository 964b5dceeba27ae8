import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  byteTokenizer,
  decodeSafetensors,
  headStatistics,
  laneStateFloats,
  positionPrompt,
  onePage,
  randomStream,
  validateJobSpec,
  tensorToFloat32,
  type StateSample,
  type StateSummary,
} from "@segue/core";
import { availableEngines, createEngine, initialParameters, writeModelFolder, type EngineName } from "@segue/engine";
import { segue } from "./support/scripted-coordinator.js";

const { model } = validateJobSpec({
  model: { layers: 2, dModel: 32, headDim: 16, dState: 16, chunk: 64 },
  data: { passkey: {} },
  train: { steps: 1 },
}).spec;
const random = randomStream(5, "weights");
const parameters = initialParameters(model, 1).map((value) => value * (1 + 0.5 * random.normal()));

describe("segue on a model folder", () => {
  let dir: string;
  let engine: EngineName;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "segue-generate-"));
    await writeModelFolder(dir, { model, parameters: onePage(parameters) }, 0);
    engine = (await availableEngines()).find(({ reason }) => reason === undefined)!.name;
  });
  after(() => rm(dir, { recursive: true, force: true }));

  const json = async (...args: string[]) => {
    const { exitCode, stdout, stderr } = await segue(["generate", dir, "--json", ...args]);
    assert.equal(exitCode, 0, stdout + stderr);
    return JSON.parse(stdout) as { text: string; tokens: number[]; promptTokens: number };
  };

  it("adds what the whole text's most likely tokens are, from a long file as from the command line", async () => {
    const prompt = "It was a dark and stormy night. ".repeat(80).trimEnd();
    const { tokens, promptTokens } = await json("--prompt", prompt, "--tokens", "6");
    assert.equal(promptTokens, prompt.length);
    const own = await createEngine(engine, { model, precision: "f32", threads: 1 });
    own.writeParameters(parameters);
    const whole = byteTokenizer().encode(prompt);
    for (const token of tokens) {
      const logits = own.prefill({ lanes: 1, tokens: whole.length, tokens_BT: Int32Array.from(whole) }, own.createStates(1));
      assert.equal(token, logits.indexOf(Math.max(...logits.subarray(0, 256))));
      whole.push(token);
    }
    own.close();
    const file = join(dir, "prompt.txt");
    await writeFile(file, prompt);
    assert.deepEqual((await json("--prompt-file", file, "--tokens", "6")).tokens, tokens);
  });

  it("draws the same text with the same seed, another with another, and says it on standard output", async () => {
    const drawn = (seed: string) => json("--temperature", "1", "--seed", seed, "--tokens", "40", "--prompt", "a");
    const first = await drawn("1");
    assert.deepEqual((await drawn("1")).tokens, first.tokens);
    assert.notDeepEqual((await drawn("2")).tokens, first.tokens);
    assert.ok(new Set(first.tokens).size > 20);
    const plain = await segue(["generate", dir, "--temperature", "1", "--seed", "1", "--tokens", "40", "--prompt", "a"]);
    assert.equal(plain.stdout, `${first.text}\n`);
    assert.match(plain.stderr, /1 tokens read, \d+ made/);
  });

  it("begins a document where there is no prompt, and refuses two", async () => {
    const { promptTokens, tokens } = await json("--tokens", "3", "--temperature", "1");
    assert.deepEqual([promptTokens, tokens.length], [0, 3]);
    assert.equal((await segue(["generate", dir, "--prompt", "a", "--prompt-file", "b"])).exitCode, 2);
    const missing = await segue(["generate", dir, "--prompt-file", join(dir, "none.txt")]);
    assert.match(missing.stderr, /^error FILE_UNREADABLE/);
  });

  it("stops at an end token that any of the usual places names, at the first of a list that comes", async () => {
    const other = await mkdtemp(join(tmpdir(), "segue-generate-"));
    await writeModelFolder(other, { model, parameters: onePage(parameters) }, 255);
    const tokensWith = async (files: Record<string, unknown>): Promise<number[]> => {
      for (const [name, content] of Object.entries(files)) await writeFile(join(other, name), JSON.stringify(content));
      const { exitCode, stdout, stderr } = await segue(["generate", other, "--json", "--prompt", "a", "--tokens", "12"]);
      for (const name of Object.keys(files)) if (name !== "config.json") await rm(join(other, name));
      assert.equal(exitCode, 0, stdout + stderr);
      return (JSON.parse(stdout) as { tokens: number[] }).tokens;
    };
    const all = await tokensWith({});
    assert.equal(all.length, 12);
    // A token that was not there before, and one that does not come.
    const at = all.findIndex((token, place) => place > 0 && !all.slice(0, place).includes(token));
    const end = all[at]!;
    const never = Array.from({ length: 256 }, (_, id) => id).find((id) => !all.includes(id))!;
    const expected = all.slice(0, at);
    const name = "<|fin|>";
    const tokenizer = {
      added_tokens: [
        { id: end, content: name, special: true, normalized: false, single_word: false, lstrip: false, rstrip: false },
      ],
      ...{ normalizer: null, post_processor: null },
      pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
      decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
      // Ids of a padded vocabulary; "a" has the byte's.
      model: {
        type: "BPE",
        vocab: Object.fromEntries(
          Array.from({ length: 256 }, (_, id) => [id === end ? name : id === 97 ? "a" : String.fromCodePoint(0x4e00 + id), id]),
        ),
        merges: [],
      },
    };
    const config = JSON.parse(await readFile(join(other, "config.json"), "utf8")) as object;
    assert.deepEqual(await tokensWith({ "generation_config.json": { eos_token_id: end } }), expected);
    assert.deepEqual(await tokensWith({ "generation_config.json": { eos_token_id: [never, end, 9999] } }), expected);
    assert.deepEqual(await tokensWith({ "config.json": { ...config, eos_token_id: [end, 255] } }), expected);
    assert.deepEqual(await tokensWith({ "config.json": { ...config, eos_token_id: end } }), expected);
    const nameless = { "config.json": { ...config, eos_token_id: undefined }, "tokenizer.json": tokenizer };
    for (const eos_token of [name, { content: name }]) {
      assert.deepEqual(await tokensWith({ ...nameless, "tokenizer_config.json": { eos_token } }), expected);
      assert.deepEqual(await tokensWith({ ...nameless, "special_tokens_map.json": { eos_token } }), expected);
    }
    await rm(other, { recursive: true, force: true });
  });

  it("asks for the tokenizer of a model that does not read bytes", async () => {
    const other = await mkdtemp(join(tmpdir(), "segue-generate-"));
    const large = { ...model, vocab: 4096 };
    await writeModelFolder(other, { model: large, parameters: onePage(initialParameters(large, 1)) }, 0);
    const { stderr } = await segue(["generate", other]);
    assert.match(stderr, /^error TOKENIZER_MISSING: .* put the model's tokenizer\.json there/);
    await writeFile(join(other, "tokenizer.json"), "{");
    assert.match((await segue(["generate", other])).stderr, /^error TOKENIZER_INVALID/);
    await rm(other, { recursive: true, force: true });
  });

  describe("segue states", () => {
    it("samples every head's state along the text, as one pass over it leaves it", async () => {
      const { stdout } = await segue(["states", dir, "--json", "--tokens", "300", "--every", "128", "--prompt", "random"]);
      const { samples } = JSON.parse(stdout) as { samples: StateSample[] };
      assert.deepEqual(
        samples.map(({ tokens }) => tokens),
        [128, 256, 300],
      );
      const own = await createEngine(engine, { model, precision: "f32", threads: 1 });
      own.writeParameters(parameters);
      const { read } = positionPrompt(byteTokenizer(), { prompt: "random", seed: 0, tokens: 300 }, 0);
      const lane = own.createStates(1);
      own.prefill({ lanes: 1, tokens: 300, tokens_BT: read(0, 300) }, lane);
      const state = new Float32Array(laneStateFloats(model));
      own.readStates(lane, state);
      own.close();
      headStatistics(model, state).forEach(({ layer, head, variance, rms }, index) => {
        const found = samples[2]!.heads[index]!;
        assert.deepEqual([found.layer, found.head], [layer, head]);
        assert.ok(Math.abs(found.variance / variance - 1) < 1e-3 && Math.abs(found.rms / rms - 1) < 1e-3);
      });
    });

    it("writes every statistic of every sample where it is told", async () => {
      const out = join(dir, "states.safetensors");
      const more = ["--tokens", "512", "--every", "256", "--histograms", "300", "--out", out];
      const { stdout } = await segue(["states", dir, "--json", ...more]);
      const { samples, summary } = JSON.parse(stdout) as { samples: StateSample[]; summary: StateSummary };
      const tensors = decodeSafetensors(await readFile(out));
      const heads = samples[0]!.heads.length;
      assert.deepEqual(
        tensorToFloat32(tensors.get("ssm.median")!),
        Float32Array.from(samples.flatMap((sample) => sample.heads.map(({ median }) => median))),
      );
      assert.deepEqual(tensors.get("histogram.counts")!.shape, [1, model.layers, heads / model.layers, 40]);
      assert.equal(tensorToFloat32(tensors.get("conv.variance")!)[model.layers], Math.fround(samples[1]!.conv[0]!.variance));
      assert.equal(summary.outliers[0]!.share, Math.max(...samples[1]!.heads.map(({ outlierShare }) => outlierShare)));
    });

    it("names the heads that grow beyond the training length", async () => {
      const { stdout } = await segue(["states", dir, "--tokens", "512", "--train-tokens", "256"]);
      assert.match(stdout, /TOKENS +MEAN +RMS +VARIANCE/);
      assert.match(stdout, /fastest growing heads\nLAYER\.HEAD +WITHIN +BEYOND +RATIO\n +\d\.\d /);
    });
  });
});
