import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { learningRateAt, validateJobSpec, type JobSpec, type JobSpecInput } from "@segue/core";
import { planData } from "../src/documents/data-plan.js";
import { createDataSource } from "../src/documents/data-source.js";
import type { StepCount } from "../src/feed/step-cutter.js";
import { planWarnings } from "../src/jobs/plan-data.js";
import { LearningRates } from "../src/run/learning-rates.js";

/** Tokens are words and the spaces before them: fewer than bytes. */
const TOKENIZER = {
  version: "1.0",
  added_tokens: [{ id: 3, content: "</s>", single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }],
  normalizer: null,
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  post_processor: null,
  decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: { type: "BPE", unk_token: null, vocab: { a: 0, "\u0120": 1, "\u0120a": 2 }, merges: ["\u0120 a"] },
};

let baseDir = "";
const data = () => createDataSource({ baseDir, cacheDir: join(baseDir, "cache") });
const specFor = (more: JobSpecInput = {}): JobSpec =>
  validateJobSpec({
    model: { layers: 1, dModel: 64 },
    tbptt: { segmentTokens: 8 },
    batch: { shards: 2, lanesPerShard: 1 },
    train: { steps: 500 },
    ...more,
    data: { paths: ["docs"], minDocumentTokens: 5, epochs: 2, ...more.data },
  }).spec;
const withTokenizer = { tokenizer: { kind: "huggingface" as const, file: "tokenizer.json" } };

/** Steps that are really cut. */
async function cutSteps(spec: JobSpec): Promise<number> {
  const cutter = await data().open(spec, {});
  let steps = 0;
  while (steps < spec.train.steps && (await cutter.next())) steps++;
  await cutter.close();
  return steps;
}

beforeEach(async () => {
  baseDir = await mkdtemp(join(tmpdir(), "segue-plan-"));
  await mkdir(join(baseDir, "docs"));
  for (let i = 0; i < 9; i++) await writeFile(join(baseDir, "docs", `${i}.txt`), "a" + " a".repeat(3 + 40 * (i % 4)));
  await writeFile(join(baseDir, "tokenizer.json"), JSON.stringify(TOKENIZER));
});
afterEach(() => rm(baseDir, { recursive: true, force: true }));

describe("the plan of a job's documents", () => {
  it("is exact for bytes", async () => {
    const spec = specFor();
    const plan = await data().plan?.(spec);
    const lengths = Array.from({ length: 9 }, (_, i) => 1 + 2 * (3 + 40 * (i % 4)));
    assert.deepEqual(plan, {
      basis: "EXACT",
      documents: 9,
      documentsTooShort: 0,
      tokens: lengths.reduce((sum, length) => sum + length + 1, 0),
      steps: await cutSteps(spec),
    });
    assert.ok(plan.steps < 500);
    assert.equal((await data().plan?.(specFor({ data: { minDocumentTokens: 100 } })))?.documentsTooShort, 5);
    assert.equal((await data().plan?.(specFor({ train: { steps: 3 } })))?.steps, 3);
    assert.equal((await data().plan?.(specFor({ data: { epochs: 0 } })))?.steps, 500);
  });

  it("is exact for a tokenizer where the text is short, and counted once", async () => {
    const spec = specFor(withTokenizer);
    const plan = await data().plan?.(spec);
    assert.deepEqual([plan?.basis, plan?.documents, plan?.documentsTooShort], ["EXACT", 6, 3]);
    assert.equal(plan?.steps, await cutSteps(spec));
    const [kept = ""] = await readdir(join(baseDir, "cache", "token-counts"));
    await writeFile(join(baseDir, "cache", "token-counts", kept), new Uint8Array(new Float64Array(9).fill(1000).buffer));
    assert.equal((await data().plan?.(spec))?.tokens, 9 * 1001);
  });

  it("is estimated where there is more text, and counted exactly when the job has started", async () => {
    await writeFile(join(baseDir, "docs", "long.txt"), " a".repeat(20_000));
    const spec = specFor({ ...withTokenizer, batch: { shards: 8, lanesPerShard: 8 } });
    const plan = await planData(spec, { baseDir, cacheDir: join(baseDir, "cache") }, 1000);
    assert.equal(plan?.basis, "ESTIMATED");
    assert.ok(Math.abs(plan.tokens - 20_500) < 500, `${plan.tokens}`);
    assert.deepEqual(await readdir(join(baseDir, "cache")), ["documents"]);
    const count = data().countSteps?.(spec);
    assert.equal(await count?.total, await cutSteps(spec));
    assert.equal((await data().plan?.(spec))?.basis, "EXACT");
    count?.close();
  });

  it("is counted from the start on, and not where documents never end", async () => {
    const spec = specFor(withTokenizer);
    const count = data().countSteps?.(spec);
    const total = await cutSteps(spec);
    assert.equal(await count?.total, total);
    assert.ok((count?.atLeast ?? Infinity) <= total, `${count?.atLeast} of ${total}`);
    count?.close();
    assert.equal(data().countSteps?.(specFor({ data: { epochs: 0 } })), undefined);
    assert.equal(data().countSteps?.(specFor({ data: { paths: [], passkey: { documentTokens: 300 } } })), undefined);
  });

  it("refuses documents that are all too short, and says when the documents end first", async () => {
    const warningsOf = async (more: JobSpecInput): Promise<string> => {
      const spec = specFor(more);
      return planWarnings(spec, await data().plan?.(spec)).join("\n");
    };
    await assert.rejects(warningsOf({ data: { minDocumentTokens: 1000 } }), {
      code: "SPEC_INVALID",
      message: /data.minDocumentTokens: leaves no document to train on: all 9 are shorter than 1000 tokens/,
    });
    const steps = await cutSteps(specFor());
    const last = new RegExp(`last for ${steps} of 500 steps \\(data.epochs 2\\)`);
    const fits = await warningsOf({ schedule: { warmupSteps: 5, decaySteps: 20 } });
    assert.match(fits, last);
    assert.match(fits, /decays over the last 20 of these/);
    assert.match(await warningsOf({ schedule: { warmupSteps: 300, decaySteps: 200 } }), /warm-up and decay are shortened to/);
    assert.equal(await warningsOf({ train: { steps: 20 } }), "");
    assert.equal(await warningsOf({ data: { epochs: 0 } }), "");
  });
});

describe("learning rates of documents that are still counted", () => {
  const spec = specFor({ schedule: { warmupSteps: 10, decaySteps: 50 } });
  const rate = (step: number, total: number): number => learningRateAt(step, total, spec.optimizer, spec.schedule);

  function counting(atLeast: number) {
    let settle: (total: number) => void = () => undefined;
    const total = new Promise<number>((resolve) => (settle = resolve));
    const state = { total, atLeast, close: () => undefined };
    return { rates: new LearningRates(spec, state satisfies StepCount), state, settle };
  }
  const isPending = async (promise: Promise<number>): Promise<boolean> => {
    const pending = Symbol();
    return (await Promise.race([promise, new Promise((resolve) => setImmediate(() => resolve(pending)))])) === pending;
  };

  it("are known before the decay and wait for the count where they depend on it", async () => {
    const { rates, state, settle } = counting(59);
    // Warm-up and decay may not fit yet.
    const first = rates.at(0);
    assert.ok(await isPending(first));
    state.atLeast = 100;
    for (const step of [0, 9, 49]) assert.equal(await rates.at(step), rate(step, 500));
    const later = rates.at(50);
    assert.ok(await isPending(later));
    settle(90);
    assert.equal(await first, rate(0, 90));
    assert.equal(await later, rate(50, 90));
    assert.equal(await rates.at(89), rate(89, 90));
  });

  it("fail with the count, if they depend on it", async () => {
    const state = { total: Promise.reject(new Error("unreadable")), atLeast: 100, close: () => undefined };
    const rates = new LearningRates(spec, state);
    assert.equal(await rates.at(20), rate(20, 500));
    await assert.rejects(rates.at(60), /unreadable/);
  });

  it("are those of train.steps where nothing is counted", async () => {
    assert.equal(await new LearningRates(spec, undefined).at(499), rate(499, 500));
  });
});
