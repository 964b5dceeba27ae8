import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { appendFile, link, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { SegueError, validateJobSpec, type DocumentSource, type JobSpec, type JobSpecInput } from "@segue/core";
import { createDataSource } from "../src/documents/data-source.js";
import type { Fingerprint } from "../src/documents/fingerprint.js";
import { openDocuments } from "../src/documents/open-documents.js";
import { SegmentFeed } from "../src/feed/segment-feed.js";
import type { CutStep, StepCutter } from "../src/feed/step-cutter.js";

/** Words as tokens: enough to see where pieces are cut. */
const WORD_TOKENIZER = {
  version: "1.0",
  added_tokens: [{ id: 3, content: "</s>", single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }],
  normalizer: null,
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  post_processor: null,
  decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: { type: "BPE", unk_token: null, vocab: { a: 0, "\u0120": 1, "\u0120a": 2 }, merges: ["\u0120 a"] },
};

let baseDir = "";
const put = async (name: string, content: string | Uint8Array): Promise<void> => {
  const path = join(baseDir, name);
  await mkdir(join(path, ".."), { recursive: true });
  await writeFile(path, content);
};
const folders = () => ({ baseDir, cacheDir: join(baseDir, "cache") });
const specFor = (paths: string[], more: JobSpecInput = {}): JobSpec =>
  validateJobSpec({
    model: { layers: 1, dModel: 64 },
    tbptt: { segmentTokens: 8 },
    batch: { shards: 2, lanesPerShard: 1 },
    train: { steps: 10 },
    ...more,
    data: { paths, minDocumentTokens: 0, ...more.data },
  }).spec;

async function texts(source: DocumentSource): Promise<string[]> {
  const found: string[] = [];
  for (let document = 0; document < source.count; document++) {
    const bytes: number[] = [];
    for await (const { tokens } of source.open(document, 0)) bytes.push(...Array.from(tokens));
    found.push(Buffer.from(bytes).toString("utf-8"));
  }
  return found;
}
const textsOf = async (paths: string[], more: JobSpecInput = {}): Promise<string[]> =>
  texts((await openDocuments(specFor(paths, more), folders())).source);

async function problemsOf(spec: JobSpec): Promise<string> {
  try {
    await createDataSource(folders()).prepare(spec);
  } catch (error) {
    assert.ok(error instanceof SegueError && error.code === "SPEC_INVALID", String(error));
    return (error.violations ?? []).map(({ field, description }) => `${field}: ${description}`).join("\n");
  }
  assert.fail("was accepted");
}

beforeEach(async () => {
  baseDir = await mkdtemp(join(tmpdir(), "segue-documents-"));
});
afterEach(() => rm(baseDir, { recursive: true, force: true }));

describe("documents of files", () => {
  it("are whole .txt files and lines of .jsonl, compressed or not, in the order of paths and names", async () => {
    await put("b.txt", "second \u00e9");
    await put("a.txt", "first\n");
    await put("c/d.jsonl", '{"text":"third"}\n\n{"text":"fourth\\nline","n":1}\r\n{"text":""}');
    await put("c/e.txt.gz", gzipSync("fifth"));
    await put("c/f.jsonl.gz", gzipSync('{"text":"sixth"}\n'));
    await put("c/readme.md", "not data");
    const expected = ["third", "fourth\nline", "", "fifth", "sixth"];
    assert.deepEqual(await textsOf(["c"]), expected);
    assert.deepEqual(await textsOf(["*.txt", "c", "a.txt"]), ["first\n", "second \u00e9", ...expected]);
    assert.deepEqual(await textsOf([join(baseDir, "c/*.gz")]), ["fifth", "sixth"]);
  });

  it("are those of a folder once each, whatever links lead to them, endings in any case, and what is left out is said", async () => {
    await put("d/B.TXT", "capitals");
    await put("d/a.txt", "small");
    await put("d/sub/c.JSONL.GZ", gzipSync('{"text":"packed"}'));
    await put("d/notes.md", "other");
    await put("d/.hidden.txt", "hidden");
    await put("d/.git/x.txt", "hidden");
    await put("outside/e.txt", "linked from elsewhere");
    await put("blobs/0123", "kind by the link's name");
    await symlink("../d", join(baseDir, "d/0loop"));
    await symlink("..", join(baseDir, "d/sub/up"));
    await symlink("sub", join(baseDir, "d/0again"));
    await symlink("../outside", join(baseDir, "d/linked"));
    await symlink("a.txt", join(baseDir, "d/z.txt"));
    await symlink("../blobs/0123", join(baseDir, "d/blob.txt"));
    await link(join(baseDir, "d/a.txt"), join(baseDir, "d/hard.txt"));
    const expected = ["capitals", "small", "kind by the link's name", "small", "linked from elsewhere", "packed"];
    assert.deepEqual(await textsOf(["d"]), expected);
    assert.deepEqual(await textsOf(["d", "outside", "d/linked/*.txt", "d/sub"]), expected);
    assert.deepEqual((await textsOf(["d/**/*.txt", "d"])).sort(), expected.toSorted());
    const { warnings } = await createDataSource(folders()).prepare(specFor(["d", "d/a.txt"]));
    assert.deepEqual(warnings, [
      "data.paths: 1 file is left out, not being .txt, .jsonl, .txt.gz or .jsonl.gz: d/notes.md",
      "data.paths: 2 names are left out, beginning with a dot: d/.git, d/.hidden.txt",
      "data.paths: 5 names are left out, leading to what is read already: d/0again, d/0loop, d/sub/up and 2 more",
      "data.paths: 1 file is read although another hard link to the same content is read, too: d/hard.txt",
    ]);
  });

  it("take their text from the field that the spec names", async () => {
    await put("a.jsonl", '{"body":"x","text":1}');
    assert.deepEqual(await textsOf(["a.jsonl"], { data: { textField: "body" } }), ["x"]);
  });

  it("leave out a byte order mark", async () => {
    await put("a.txt", "\ufeffabc");
    await put("b.jsonl", '\ufeff{"text":"def"}');
    assert.deepEqual(await textsOf(["."]), ["abc", "def"]);
  });

  it("are indexed once and again when the file changes", async () => {
    await put("a.jsonl", '{"text":"x"}\n');
    const { fingerprint } = await openDocuments(specFor(["a.jsonl"]), folders());
    const cached = await readdir(join(baseDir, "cache/documents"));
    assert.deepEqual((await openDocuments(specFor(["a.jsonl"]), folders())).fingerprint, fingerprint);
    assert.deepEqual(await readdir(join(baseDir, "cache/documents")), cached);
    await appendFile(join(baseDir, "a.jsonl"), '{"text":"y"}\n');
    assert.deepEqual(await textsOf(["a.jsonl"]), ["x", "y"]);
    assert.notDeepEqual((await openDocuments(specFor(["a.jsonl"]), folders())).fingerprint, fingerprint);
  });

  it("have a fingerprint of their content, whatever they are called and wherever they lie", async () => {
    const of = async (paths: string[]) => (await openDocuments(specFor(paths), folders())).fingerprint;
    const long = "long ".repeat(40_000);
    await put("x/a.txt", long);
    await put("x/b.jsonl", '{"text":"one"}\n{"text":"two"}');
    const stored = await of(["x"]);
    assert.deepEqual({ ...stored, sha256: "" }, { version: 2, files: 2, documents: 3, bytes: 200_006, sha256: "" });
    await put("y/1.txt.gz", gzipSync(long));
    await put("y/2.jsonl", '{"text":"one","n":1}\n\n{"text":"two"}\n');
    assert.deepEqual(await of(["y"]), stored);
    assert.notEqual((await of(["x/b.jsonl", "x/a.txt"])).sha256, stored.sha256);
    await put("y/2.jsonl", '{"text":"onet"}\n{"text":"wo"}');
    assert.notEqual((await of(["y"])).sha256, stored.sha256);
  });

  it("are checked as they are read, and indexed again when what is there is not what was indexed", async () => {
    await put("a.txt", "0123456789".repeat(20_000));
    await put("b.jsonl", JSON.stringify({ text: "9876543210".repeat(10) }));
    const { source } = await openDocuments(specFor(["a.txt", "b.jsonl"]), folders());
    const read = async (document: number, from = 0): Promise<number> => {
      let size = 0;
      for await (const { tokens } of source.open(document, from)) size += tokens.length;
      return size;
    };
    assert.deepEqual([await read(0), await read(0, 70_001), await read(1)], [200_000, 129_999, 100]);
    await put("a.txt", "0123456789".repeat(19_999) + "012345678x");
    await assert.rejects(read(0), { code: "DATA_CHANGED" });
    await assert.rejects(read(0, 199_999), { code: "DATA_CHANGED" });
    await put("a.txt", "0123");
    await assert.rejects(read(0), { code: "DATA_CHANGED" });
    await rm(join(baseDir, "a.txt"));
    await assert.rejects(read(0), { code: "DATA_UNREADABLE" });
    for (const name of await readdir(join(baseDir, "cache/documents"))) {
      await writeFile(join(baseDir, "cache/documents", name, "text"), "x".repeat(100));
    }
    await assert.rejects(read(1), { code: "DATA_CHANGED" });
    assert.deepEqual(await textsOf(["b.jsonl"]), ["9876543210".repeat(10)]);
  });

  it("can be entered at any token, with bytes and with a tokenizer", async () => {
    await put("tokenizer.json", JSON.stringify(WORD_TOKENIZER));
    await put("a.txt", "a".padEnd(100_001, " a"));
    for (const tokenizer of [{ kind: "bytes" }, { kind: "huggingface", file: "tokenizer.json" }] as const) {
      const { source } = await openDocuments(specFor(["a.txt"], { tokenizer }), folders());
      const from = async (token: number): Promise<number[]> => {
        const tokens: number[] = [];
        for await (const chunk of source.open(0, token)) tokens.push(...Array.from(chunk.tokens));
        return tokens;
      };
      const whole = await from(0);
      if (tokenizer.kind === "huggingface") assert.deepEqual(whole, [0, ...new Array<number>(50_000).fill(2)]);
      else assert.equal(whole.length, 100_001);
      for (const token of [1, 4096, whole.length - 1, whole.length]) assert.deepEqual(await from(token), whole.slice(token));
    }
  });

  it("are refused with the file, the line and the reason, all at once", async () => {
    await put("bad.jsonl", '{"text":"x"}\n{"text":\n');
    await put("field.jsonl", '{"body":"x"}\n');
    await put("list.jsonl", "[1]\n");
    await put("blank.jsonl", "\n \n");
    await put("empty.txt", "");
    await put("binary.txt", Uint8Array.of(0x66, 0xff, 0xfe));
    await put("broken.txt.gz", gzipSync("some text").subarray(0, 15));
    await put("plain.jsonl.gz", "no gzip");
    await put("sheet.csv", "a,b");
    await mkdir(join(baseDir, "nothing"));
    const paths = [
      "bad.jsonl",
      "field.jsonl",
      "list.jsonl",
      "blank.jsonl",
      "empty.txt",
      "binary.txt",
      "broken.txt.gz",
      "plain.jsonl.gz",
    ];
    const problems = await problemsOf(specFor([...paths, "sheet.csv", "nothing", "missing.txt", "no/*.txt"]));
    const expected = [
      /data.paths\[0\]: .*bad.jsonl: line 2 is not JSON/,
      /data.paths\[1\]: .*field.jsonl: line 1 has no text in the field "text" \(data.textField\); its fields are body/,
      /data.paths\[2\]: .*list.jsonl: line 1 has no text/,
      /data.paths\[3\]: .*blank.jsonl: it holds no document/,
      /data.paths\[4\]: .*empty.txt is empty/,
      /data.paths\[5\]: .*binary.txt: it is not UTF-8 text/,
      /data.paths\[6\]: .*broken.txt.gz: unexpected end of file/,
      /data.paths\[7\]: .*plain.jsonl.gz: incorrect header check/,
      /data.paths\[8\]: .*sheet.csv is not a .txt/,
      /data.paths\[9\]: .*nothing holds no .txt/,
      /data.paths\[10\]: .*missing.txt does not exist/,
      /data.paths\[11\]: no\/\*.txt matches no file/,
    ];
    for (const pattern of expected) assert.match(problems, pattern);
    assert.equal(problems.split("\n").length, expected.length);
    assert.deepEqual(
      (await readdir(join(baseDir, "cache/documents"))).filter((name) => name.endsWith(".tmp")),
      [],
    );
  });

  it("are refused when the tokenizer cannot be used", async () => {
    await put("a.txt", "text");
    await put("bad.json", "{}");
    const withTokenizer = (file: string): JobSpec => specFor(["a.txt"], { tokenizer: { kind: "huggingface", file } });
    assert.match(await problemsOf(withTokenizer("missing.json")), /tokenizer.file: .*missing.json cannot be used: ENOENT/);
    assert.match(await problemsOf(withTokenizer("bad.json")), /tokenizer.file: .*has no model/);
    await put("tokenizer.json", JSON.stringify(WORD_TOKENIZER));
    const small = { ...withTokenizer("tokenizer.json"), model: { ...withTokenizer("tokenizer.json").model, vocab: 3 } };
    assert.match(await problemsOf(small), /model.vocab: must be at least the tokenizer's 4/);
    assert.equal((await createDataSource(folders()).prepare(withTokenizer("tokenizer.json"))).spec.model.vocab, 16);
  });
});

describe("createDataSource", () => {
  const cut = async (spec: JobSpec, cursor?: unknown): Promise<CutStep[]> => {
    const cutter = await createDataSource(folders()).open(spec, { cursor });
    const steps: CutStep[] = [];
    for (let step = await cutter.next(); step && steps.length < 20; step = await cutter.next()) steps.push(step);
    await cutter.close();
    return steps;
  };

  it("cuts files into steps for the wire and goes on from any step's cursor", async () => {
    await put("a.txt", "abcdefghijklmnop");
    await put("b.jsonl", ["one", "two words", "three"].map((text) => JSON.stringify({ text })).join("\n"));
    const spec = specFor(["."], { data: { epochs: 2 } });
    const steps = await cut(spec);
    const [first] = steps;
    assert.ok(first);
    assert.equal(first.shards.length, 2);
    assert.equal(first.shards[0]!.tokens.length, 4 * 8);
    assert.equal(first.totalWeight > 0, true);
    assert.deepEqual([steps.at(-1)!.documentsRead, steps.at(-1)!.documentsDroppedShort], [8, 0]);
    for (const [index, { cursor }] of steps.entries()) {
      assert.deepEqual(await cut(spec, JSON.parse(JSON.stringify(cursor))), steps.slice(index + 1));
    }
  });

  it("refuses to go on when the documents have changed", async () => {
    await put("a.txt", "abcdefghijklmnop");
    const spec = specFor(["a.txt"]);
    const [first] = await cut(spec);
    await appendFile(join(baseDir, "a.txt"), "q");
    await assert.rejects(cut(spec, first!.cursor), { code: "DATA_CHANGED" });
  });

  it("goes on from cursors of earlier versions, with the files of then, and writes their fingerprints anew", async () => {
    await put("d/a.txt", "abcdefghijklmnop".repeat(4));
    await put("d/B.TXT", "not read then".repeat(4));
    await symlink("../d", join(baseDir, "d/loop"));
    const spec = specFor(["d"]);
    // As version 1 wrote it: name, documents and bytes of d/a.txt and d/loop/a.txt.
    const fingerprint = createHash("sha256")
      .update(
        JSON.stringify([
          ["a.txt", 1, 64],
          ["a.txt", 1, 64],
        ]),
      )
      .digest("hex");
    const today = await cut(spec);
    const [first] = today;
    const old = { ...(first!.cursor as object), fingerprint };
    const goneOn = await cut(spec, old);
    const written = (goneOn[0]!.cursor as { fingerprint: Fingerprint }).fingerprint;
    assert.deepEqual([written.version, written.files, written.bytes], [2, 2, 128]);
    assert.deepEqual((await cut(spec, goneOn[0]!.cursor)).slice(0, 19), goneOn.slice(1));
    await put("d/a.txt", "ABCDEFGHIJKLMNOP".repeat(4));
    await assert.rejects(cut(spec, goneOn[0]!.cursor), { code: "DATA_CHANGED" });
    await put("d/a.txt", "abc");
    await assert.rejects(cut(spec, old), { code: "DATA_CHANGED" });
  });

  it("knows the tokenizer of an earlier version's checkpoint by its file", async () => {
    await put("tokenizer.json", JSON.stringify(WORD_TOKENIZER));
    const tokenizer = { kind: "huggingface", file: "tokenizer.json" } as const;
    const spec = specFor([], {
      tokenizer,
      data: { passkey: { documentTokens: 512 } },
      model: { layers: 1, dModel: 64, vocab: 16 },
    });
    const open = (fingerprint: unknown, tokenizerSha256: string) =>
      createDataSource(folders())
        .open(spec, { fingerprint, tokenizerSha256 })
        .then((cutter) => cutter.close());
    const right = createHash("sha256").update(JSON.stringify(WORD_TOKENIZER)).digest("hex");
    await open("passkey", right);
    await assert.rejects(open("passkey", "0".repeat(64)), { code: "DATA_CHANGED" });
  });

  it("refuses to go on with places in documents that an earlier version read to other tokens", async () => {
    await put("tokenizer.json", JSON.stringify(WORD_TOKENIZER));
    await put("a.txt", "a".padEnd(2001, " a"));
    const spec = specFor(["a.txt"], { tokenizer: { kind: "huggingface", file: "tokenizer.json" } });
    const [first] = await cut(spec);
    const cursor = first!.cursor as { fingerprint: Fingerprint };
    const { reading, ...earlier } = cursor.fingerprint;
    assert.equal(reading, 2);
    await assert.rejects(cut(spec, { ...cursor, fingerprint: earlier }), { code: "DATA_CHANGED", message: /earlier version/ });
    assert.ok((await cut(spec, cursor)).length > 0);
  });

  it("cuts nothing more after a document could not be read", async () => {
    const cutter: StepCutter = {
      eosId: 0,
      next: () => (calls++ === 0 ? Promise.reject(new Error("once")) : Promise.resolve(undefined)),
      close: () => Promise.resolve(),
    };
    let calls = 0;
    const feed = new SegmentFeed(cutter, 0);
    await assert.rejects(feed.get(0), /once/);
    await assert.rejects(feed.get(0), /once/);
    await feed.close();
  });

  it("cuts synthetic passkey documents without end", async () => {
    const { spec } = validateJobSpec({
      model: { layers: 1, dModel: 64 },
      data: { passkey: { documentTokens: 512 } },
      tbptt: { segmentTokens: 64 },
      batch: { shards: 1, lanesPerShard: 2 },
      train: { steps: 20 },
    });
    assert.deepEqual(await createDataSource(folders()).prepare(spec), { spec, warnings: [] });
    const steps = await cut(spec);
    assert.equal(steps.length, 20);
    assert.match(
      Buffer.from(new Int32Array(steps[0]!.shards[0]!.tokens.slice().buffer)).toString("utf-8"),
      /^There is important info/,
    );
    assert.ok(steps.some(({ shards }) => new Float32Array(shards[0]!.weights.slice().buffer).includes(10)));
    assert.deepEqual(await cut(spec, steps[9]!.cursor).then((rest) => rest.slice(0, 10)), steps.slice(10));
  });

  it("holds a few chunks of a long document, never the whole", async () => {
    const megabyte = "The grass is green. ".repeat(50_000);
    for (let i = 0; i < 100; i++) await appendFile(join(baseDir, "long.txt"), megabyte);
    const spec = specFor(["long.txt"], { tbptt: { segmentTokens: 65_536 }, batch: { shards: 1, lanesPerShard: 1 } });
    const cutter = await createDataSource(folders()).open(spec, {});
    const memory = (): number => process.memoryUsage().rss;
    for (let step = 0; step < 100; step++) await cutter.next();
    const before = memory();
    for (let step = 0; step < 1300; step++) assert.ok(await cutter.next());
    assert.ok(memory() - before < 60e6, `grew by ${memory() - before} bytes`);
    await cutter.close();
  });
});
