import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Scratch, runSegue, segueJson } from "./helpers/clusters.js";
import { finalDigest, submitSpec, waitForSuccess } from "./helpers/jobs.js";

/** A byte-level BPE without merges: every printable ASCII character is a token. */
function asciiTokenizer(): object {
  const vocab: Record<string, number> = { "\u010a": 0, "\u0120": 1 };
  for (let code = 0x21; code < 0x7f; code++) vocab[String.fromCharCode(code)] = code - 0x21 + 2;
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    added_tokens: [
      {
        id: Object.keys(vocab).length,
        content: "<|endoftext|>",
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      },
    ],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: "BPE", unk_token: null, fuse_unk: false, vocab, merges: [] },
  };
}

describe("training on files", () => {
  const scratch = new Scratch();
  after(() => scratch.close());

  it("reads text, JSON lines and gzip with a Hugging Face tokenizer, once each, and can be evaluated and exported", async () => {
    const folder = scratch.folder();
    const story = (name: string, repeats: number): string => `${name} went on. And then it went on again.\n`.repeat(repeats);
    writeFileSync(join(folder, "long.txt"), story("The long one", 60));
    writeFileSync(join(folder, "short.txt"), "Too short.");
    const lines = ["first", "second"].map((name) => JSON.stringify({ body: story(name, 30) })).join("\n");
    writeFileSync(join(folder, "lines.jsonl"), lines);
    writeFileSync(join(folder, "packed.jsonl.gz"), gzipSync(JSON.stringify({ body: story("packed", 30) })));
    const tokenizerFile = join(folder, "tokenizer.json");
    writeFileSync(tokenizerFile, JSON.stringify(asciiTokenizer()));

    const cluster = await scratch.cluster({ workers: 2, evaluators: 1, threads: 1 });
    const jobId = await submitSpec(
      scratch,
      cluster,
      `
name: files
model: { layers: 1, dModel: 16, dState: 8, headDim: 8, chunk: 16 }
data: { paths: ["${folder}/*.txt", "${folder}/*.jsonl", "${folder}/*.jsonl.gz"], textField: body, minDocumentTokens: 100, epochs: 1 }
tokenizer: { kind: huggingface, file: "${tokenizerFile}" }
tbptt: { segmentTokens: 64, segmentsPerChain: 0 }
batch: { shards: 2, lanesPerShard: 1 }
train: { steps: 1000 }
workers: { min: 2, max: 2 }
evaluations: [{ name: passkey, passkey: { lengths: [400], depths: [0.5], samples: 2, digits: 2 } }]
`,
    );
    const job = (await waitForSuccess(cluster, jobId)) as unknown as Record<string, unknown>;
    assert.equal(job["documentsRead"], 4);
    assert.equal(job["documentsDroppedShort"], 1);
    assert.ok(Number(job["step"]) > 10 && Number(job["step"]) < 1000, `one epoch ends the job: ${String(job["step"])}`);

    const evaluation = await segueJson<{ cells: unknown[] }>(
      cluster,
      ...["eval", jobId, "--name", "again", "--lengths", "300", "--depths", "0.5", "--samples", "2", "--digits", "2", "--watch"],
    ).catch((error: unknown) => assert.fail(String(error)));
    assert.ok(evaluation);
    const model = join(folder, "model");
    await segueJson(cluster, "export", jobId, model);
    assert.ok(existsSync(join(model, "tokenizer.json")));
    const verified = await runSegue(cluster, "verify", model, "--engine", "cpu");
    assert.equal(verified.status, 0, verified.stdout + verified.stderr);
  });

  it("decays to the end of the documents, whoever trains, also over a crash of the coordinator", async () => {
    const folder = scratch.folder();
    for (let i = 0; i < 12; i++) writeFileSync(join(folder, `${i}.txt`), `Document ${i} goes on and on. `.repeat(20 + i));
    const spec = (more: string): string => `
model: { layers: 1, dModel: 16, dState: 8, headDim: 8, chunk: 16 }
data: { paths: ["${folder}"], minDocumentTokens: 100, epochs: 2 }
tbptt: { segmentTokens: 64, segmentsPerChain: 0 }
batch: { shards: 4, lanesPerShard: 1 }
optimizer: { learningRate: 0.01 }
schedule: { warmupSteps: 5, decaySteps: 19 }
train: { steps: 2000, engine: cpu }
rounds: { maxSteps: 8 }
${more}
`;
    const crash = { point: "coordinator.roundCommitted", fromStep: 20, action: "kill" } as const;
    let crashed: () => void = () => undefined;
    const isCrashed = new Promise<void>((resolve) => (crashed = resolve));
    const options = { workers: 3, threads: 1, faults: { coordinator: [crash] }, onCrash: () => crashed() };
    const cluster = await scratch.cluster(options);
    const disturbed = await submitSpec(scratch, cluster, spec("workers: { max: 1 }\ncheckpoints: { everySteps: 8 }"));
    await isCrashed;
    await cluster.restart("coordinator");
    await waitForSuccess(cluster, disturbed);
    const shared = await submitSpec(scratch, cluster, spec("workers: { min: 3 }"));
    const job = (await waitForSuccess(cluster, shared)) as unknown as Record<string, unknown>;
    assert.equal(await finalDigest(cluster, disturbed), await finalDigest(cluster, shared));
    assert.ok(Number(job["step"]) < 2000);
    assert.equal(job["totalSteps"], job["step"]);
    assert.ok(Math.abs(Number(job["learningRate"]) - 0.01 / 20) < 1e-9, `the last step's rate is ${String(job["learningRate"])}`);
    assert.match(String(job["reason"]), new RegExp(`the documents ended at step ${String(job["step"])}$`));
  });
});
