import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseEventLog, replayEvents } from "@segue/core";
import type { DataSource } from "@segue/coordinator";
import { JobPhase } from "@segue/protocol";
import { fromServiceError } from "@segue/runtime";
import { createDataSource } from "../src/documents/data-source.js";
import { TestCluster } from "./helpers/cluster.js";

const TOKENIZER = {
  version: "1.0",
  added_tokens: [{ id: 3, content: "</s>", single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }],
  normalizer: null,
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  post_processor: null,
  decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: { type: "BPE", unk_token: null, vocab: { a: 0, "\u0120": 1, "\u0120a": 2 }, merges: ["\u0120 a"] },
};
const SWAPPED = { ...TOKENIZER, model: { ...TOKENIZER.model, vocab: { a: 1, "\u0120": 0, "\u0120a": 2 } } };

/** A data source whose cutters stop before a step until they are let go. */
class Gate {
  #step = Infinity;
  #let: () => void = () => undefined;
  #arrived: () => void = () => undefined;
  #open: Promise<void> = Promise.resolve();

  /** @returns resolves when a cutter stands before the step */
  hold(step: number): Promise<void> {
    this.#step = step;
    this.#open = new Promise((resolve) => (this.#let = resolve));
    return new Promise((resolve) => (this.#arrived = resolve));
  }

  release(): void {
    this.#step = Infinity;
    this.#let();
  }

  guard(data: DataSource): DataSource {
    return {
      ...data,
      open: async (spec, from) => {
        const cutter = await data.open(spec, from);
        return {
          ...cutter,
          next: async () => {
            const cut = await cutter.next();
            if ((cut?.cursor as { step: number } | undefined)?.step === this.#step) {
              this.#arrived();
              await this.#open;
            }
            return cut;
          },
        };
      },
    };
  }
}

describe("a job whose data are not there", () => {
  let folder: string;
  let gate: Gate;
  let cluster: TestCluster;
  const path = (name: string): string => join(folder, name);
  const put = (name: string, content: string): Promise<void> => writeFile(path(name), content);
  /** Other content of the same size, with the same times as far as they can be set. */
  const edit = async (name: string): Promise<void> => {
    const { atime, mtime } = await stat(path(name));
    await put(name, [...(await readFile(path(name), "utf8"))].reverse().join(""));
    await utimes(path(name), atime, mtime);
  };
  const spec = (checkpoints = 4) => `
name: data
model: { layers: 1, dModel: 16, dState: 4, headDim: 8, chunk: 4 }
data: { paths: ["${folder}/d"], minDocumentTokens: 10 }
tokenizer: { kind: huggingface, file: "${folder}/tokenizer.json" }
tbptt: { segmentTokens: 8 }
batch: { shards: 2, lanesPerShard: 1 }
train: { steps: 24 }
rounds: { targetMs: 20, maxSteps: 3 }
checkpoints: { everySteps: ${checkpoints}, keepLast: 2 }
`;

  async function resumeRefused(jobId: string): Promise<string> {
    const refused = await cluster.jobs.resumeJob({ jobId }).then(
      () => undefined,
      (refusal: unknown) => fromServiceError(refusal),
    );
    // A slow machine's coordinator answers before it knows.
    const { reason } = await cluster.until(jobId, ({ phase }) => phase === JobPhase.PAUSED);
    assert.match(reason, /^DATA_(CHANGED|UNREADABLE): .*resume the job\.$/);
    if (refused) {
      assert.equal(refused.status, "FAILED_PRECONDITION");
      assert.ok(reason.startsWith(`${refused.code}: `) && refused.message.endsWith(reason));
    }
    return reason;
  }

  const restart = async (): Promise<void> => {
    await cluster.stopCoordinator();
    await cluster.startCoordinator();
  };

  /** A job paused on request at some step after the sixth. */
  async function paused(yaml = spec()): Promise<string> {
    const arrived = gate.hold(10);
    await cluster.worker();
    const jobId = await cluster.submit(yaml);
    await arrived;
    await cluster.jobs.pauseJob({ jobId });
    gate.release();
    await cluster.until(jobId, ({ phase }) => phase === JobPhase.PAUSED);
    return jobId;
  }

  let undisturbed: string | undefined;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "segue-data-"));
    await mkdir(path("d"));
    for (const [index, size] of [60, 45, 80].entries()) await put(`d/${index}.txt`, "a".padEnd(size * 2, " a"));
    await put("d/3.txt", "a a a aa aaa a aa a aaaa a aa a a a aaaaaaa a");
    await put("d/4.jsonl", '{"text":"aaa a aa a a a a aa aaaa aaaa a aaa"}\n{"text":"a aa aaa aaaa a aa aaa aaaa"}');
    await put("tokenizer.json", JSON.stringify(TOKENIZER));
    gate = new Gate();
    const data = (): DataSource => gate.guard(createDataSource({ baseDir: folder, cacheDir: path("cache") }));
    cluster = await TestCluster.start({ data: data() });
    if (undisturbed === undefined) {
      await cluster.worker();
      undisturbed = await cluster.digest(await cluster.submit(spec()));
      await cluster.close();
      cluster = await TestCluster.start({ data: data() });
    }
  });
  afterEach(async () => {
    gate.release();
    await cluster.close();
    await rm(folder, { recursive: true, force: true });
  });

  const changes: [string, RegExp, () => Promise<void>, () => Promise<void>][] = [
    [
      "a document is away",
      /DATA_CHANGED: .*5 in 4 files with \d+ bytes now, 6 in 5 files with \d+ bytes then/,
      () => rename(path("d/1.txt"), path("1.txt")),
      () => rename(path("1.txt"), path("d/1.txt")),
    ],
    [
      "a document is edited in its size and time",
      /DATA_CHANGED: .*as before, but with other content/,
      () => edit("d/3.txt"),
      () => edit("d/3.txt"),
    ],
    [
      "a line of JSON is edited in its size",
      /DATA_CHANGED/,
      async () => put("d/4.jsonl", (await readFile(path("d/4.jsonl"), "utf8")).replace("aaa a aa", "a aa aaa")),
      async () => put("d/4.jsonl", (await readFile(path("d/4.jsonl"), "utf8")).replace("a aa aaa", "aaa a aa")),
    ],
    [
      "a document is no text any more",
      /DATA_UNREADABLE: .*2\.txt: it is not UTF-8/,
      async () => {
        await rename(path("d/2.txt"), path("2.txt"));
        await writeFile(path("d/2.txt"), Uint8Array.of(0xff, 0xfe));
      },
      () => rename(path("2.txt"), path("d/2.txt")),
    ],
    [
      "the folder is away",
      /DATA_UNREADABLE: .*d does not exist/,
      () => rename(path("d"), path("away")),
      () => rename(path("away"), path("d")),
    ],
    [
      "the tokenizer is another",
      /DATA_CHANGED: The tokenizer .*tokenizer\.json is not the one/,
      () => put("tokenizer.json", JSON.stringify(SWAPPED)),
      () => put("tokenizer.json", JSON.stringify(TOKENIZER)),
    ],
    [
      "the tokenizer is away",
      /DATA_UNREADABLE: .*tokenizer\.json cannot be used/,
      () => rename(path("tokenizer.json"), path("away.json")),
      () => rename(path("away.json"), path("tokenizer.json")),
    ],
  ];
  for (const [what, reason, take, giveBack] of changes) {
    it(`is not resumed while ${what}, and goes on to the same bits when all is back`, async () => {
      const jobId = await paused();
      await take();
      assert.match(await resumeRefused(jobId), reason);
      await restart();
      await cluster.worker();
      assert.match((await cluster.until(jobId, ({ phase }) => phase === JobPhase.PAUSED)).reason, reason);
      assert.match(await resumeRefused(jobId), reason);
      await giveBack();
      await cluster.jobs.resumeJob({ jobId });
      assert.equal(await cluster.digest(jobId), undisturbed);
    });
  }

  it("pauses at a coordinator's start, and goes on by itself at the next one when they are back", async () => {
    const arrived = gate.hold(10);
    await cluster.worker();
    const jobId = await cluster.submit(spec());
    await arrived;
    const stopped = cluster.stopCoordinator();
    gate.release();
    await stopped;
    await edit("d/0.txt");
    await put("d/extra.txt", "more of it");
    await cluster.startCoordinator();
    await cluster.until(jobId, ({ phase, reason }) => phase === JobPhase.PAUSED && reason.startsWith("DATA_CHANGED: "));
    await edit("d/0.txt");
    await rm(path("d/extra.txt"));
    await restart();
    await cluster.worker();
    assert.equal(await cluster.digest(jobId), undisturbed);
  });

  it("stays paused over a coordinator's start once somebody has paused it", async () => {
    const jobId = await paused();
    await rename(path("d/1.txt"), path("1.txt"));
    await resumeRefused(jobId);
    await cluster.jobs.pauseJob({ jobId });
    await rename(path("1.txt"), path("d/1.txt"));
    await restart();
    const { job } = await cluster.jobs.getJob({ jobId });
    assert.deepEqual([job?.phase, job?.reason], [JobPhase.PAUSED, "paused on request"]);
  });

  const midRun: [string, RegExp, () => Promise<void>, () => Promise<void>][] = [
    ["change", /DATA_CHANGED: .*\.txt has changed since it was indexed/, () => editAll(), () => editAll()],
    [
      "vanish",
      /DATA_UNREADABLE: .*\.txt cannot be read: ENOENT/,
      () => rename(path("d"), path("away")),
      () => rename(path("away"), path("d")),
    ],
  ];
  const editAll = async (): Promise<void> => {
    for (const index of [0, 1, 2, 3]) await edit(`d/${index}.txt`);
  };
  for (const [what, reason, take, giveBack] of midRun) {
    for (const everySteps of [4, 0]) {
      it(`commits what it has read when they ${what} in mid-run, and pauses (checkpoints every ${everySteps})`, async () => {
        const arrived = gate.hold(10);
        await cluster.worker();
        const jobId = await cluster.submit(spec(everySteps));
        await arrived;
        await take();
        gate.release();
        const { step, checkpointStep } = await cluster.until(jobId, ({ phase }) => phase === JobPhase.PAUSED);
        assert.match((await cluster.jobs.getJob({ jobId })).job!.reason, reason);
        assert.ok(step < 24 && checkpointStep === step);
        await giveBack();
        await restart();
        await cluster.worker();
        assert.equal(await cluster.digest(jobId), undisturbed);

        const events = join(cluster.store, "jobs", jobId, "events");
        const texts = await Promise.all((await readdir(events)).sort().map((name) => readFile(join(events, name), "utf8")));
        const entries = texts.flatMap(parseEventLog);
        assert.deepEqual(replayEvents(entries).problems, []);
        const pauses = entries.flatMap((entry) => (entry.kind === "paused" ? [`${entry.code}: ${entry.reason}`] : []));
        assert.match(pauses.join("\n"), reason);
      });
    }
  }

  it("does not begin again on other data when it has no checkpoint", async () => {
    const arrived = gate.hold(10);
    const worker = await cluster.worker();
    const jobId = await cluster.submit(spec(0));
    await arrived;
    await edit("d/4.jsonl".replace("4.jsonl", "3.txt"));
    // Nobody holds the committed step any more, so that the job must go back to its beginning.
    await worker.kill();
    gate.release();
    await cluster.worker();
    const { reason } = await cluster.until(jobId, ({ phase }) => phase === JobPhase.PAUSED);
    assert.match(reason, /^DATA_CHANGED: /);
    await edit("d/3.txt");
    await cluster.jobs.resumeJob({ jobId });
    assert.equal(await cluster.digest(jobId), undisturbed);
  });

  it("can be cancelled", async () => {
    const jobId = await paused();
    await rename(path("d/1.txt"), path("1.txt"));
    await resumeRefused(jobId);
    assert.equal((await cluster.jobs.cancelJob({ jobId })).job?.phase, JobPhase.CANCELLED);
  });
});
