import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { segue } from "./support/scripted-coordinator.js";

const FAMILIES = new URL("../../../test/fixtures/tokenizers/", import.meta.url);

describe("segue tokenize", () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "segue-tokenize-"));
  });
  after(() => rm(dir, { recursive: true, force: true }));

  const put = async (name: string, content: string): Promise<string> => {
    await writeFile(join(dir, name), content);
    return join(dir, name);
  };

  it("prints the ids of the Python library as JSON, as training and as prompts read them", async () => {
    const texts = JSON.parse(await readFile(new URL("texts.json", FAMILIES), "utf8")) as Record<string, string>;
    for (const name of ["llama2", "llama3"]) {
      const family = JSON.parse(await readFile(new URL(`${name}.json`, FAMILIES), "utf8")) as {
        tokenizer: object;
        ids: Record<string, number[]>;
      };
      const tokenizer = await put("tokenizer.json", JSON.stringify(family.tokenizer));
      const file = await put("text.txt", texts["prose"]!);
      for (const more of [[], ["--as", "prompt"]]) {
        const { exitCode, stdout } = await segue(["tokenize", file, "--tokenizer", tokenizer, "--print", ...more]);
        assert.equal(exitCode, 0);
        assert.deepEqual(JSON.parse(stdout), family.ids["prose"]);
      }
      const { stdout } = await segue(["tokenize", file, "--tokenizer", dir, "--json"]);
      const { tokens, as } = JSON.parse(stdout) as { tokens: number; as: string };
      assert.deepEqual({ tokens, as }, { tokens: family.ids["prose"]!.length, as: "training" });
    }
  });

  it("reads bytes, leaves out a byte order mark as training does, and prints an empty text as an empty array", async () => {
    const bytes = async (content: string): Promise<string> =>
      (await segue(["tokenize", await put("bytes.txt", content), "--tokenizer", "bytes", "--print"])).stdout;
    assert.equal(await bytes("\ufeffa\u00e9"), "[97,195,169]\n");
    assert.equal(await bytes(""), "[]\n");
  });

  it("says what is wrong with the file or the tokenizer", async () => {
    const text = await put("text.txt", "text");
    const failed = async (...args: string[]): Promise<string> => {
      const { exitCode, stderr } = await segue(["tokenize", ...args]);
      assert.notEqual(exitCode, 0);
      return stderr;
    };
    assert.match(await failed(join(dir, "none.txt"), "--tokenizer", "bytes"), /^error FILE_UNREADABLE: Cannot read .*none.txt/);
    assert.match(await failed(text, "--tokenizer", join(dir, "none.json")), /^error FILE_UNREADABLE: Cannot read the tokenizer/);
    assert.match(await failed(await put("a.jsonl", "{}"), "--tokenizer", "bytes"), /is no plain text/);
    const odd = await put("odd.json", JSON.stringify({ model: { type: "Odd" } }));
    assert.match(await failed(text, "--tokenizer", odd), /^error TOKENIZER_UNSUPPORTED: .*the model "Odd"/);
    assert.match(await failed(text), /--tokenizer/);
  });
});
