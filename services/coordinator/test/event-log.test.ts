import assert from "node:assert/strict";
import { appendFile, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { apply, createLedger, replayEvents, validateJobSpec, type Ledger, type LedgerEvent } from "@segue/core";
import { JobPhase } from "@segue/protocol";
import { createLogger } from "@segue/runtime";
import { EventLog } from "../src/run/event-log.js";
import { TestCluster } from "./helpers/cluster.js";
import { readEntries } from "./helpers/events.js";
import { StepGate } from "./helpers/step-gate.js";

const { spec } = validateJobSpec({ model: { layers: 1, dModel: 64 }, data: { passkey: {} }, train: { steps: 100_000 } });

describe("event log", () => {
  let store: string;
  beforeEach(async () => {
    store = await mkdtemp(join(tmpdir(), "segue-events-"));
  });
  afterEach(() => rm(store, { recursive: true }));

  const fence = { verify: async () => undefined };
  const openLog = (more: Partial<ConstructorParameters<typeof EventLog>[0]> = {}): EventLog =>
    new EventLog({ jobFolder: join(store, "jobs", "j"), fence, logger: createLogger("test", "silent"), ...more });

  /** One committed round after the other by one worker, on a fresh ledger. */
  async function train(log: EventLog, rounds: number): Promise<void> {
    let ledger: Ledger = createLedger({ shards: 1, totalSteps: 100_000, step: 0, weightsDigest: "" });
    const happen = (event: LedgerEvent): void => {
      const before = ledger;
      ledger = apply(before, event);
      log.record(event, before, ledger);
    };
    log.opened(spec, ledger);
    happen({ type: "generationFormed", workerIds: ["a"] });
    happen({ type: "memberReady", generation: 1, workerId: "a", step: 0 });
    for (let round = 0; round < rounds; round++) {
      happen({ type: "roundStarted", steps: 1 });
      const report = { weightsDigest: `w${round + 1}`, results: [] };
      happen({ type: "roundReported", generation: 1, workerId: "a", firstStep: round, steps: 1, report });
      happen({ type: "roundCommitted" });
      await log.flush();
    }
  }

  it("goes on after a torn last line with the next number", async () => {
    const first = openLog();
    await train(first, 3);
    await first.close();
    const folder = join(store, "jobs", "j", "events");
    const [name = ""] = await readdir(folder);
    await appendFile(join(folder, name), '{"seq":7,"atMs":17');
    const second = openLog();
    await train(second, 2);
    await second.close();
    const replay = replayEvents(await readEntries(store, "j"));
    assert.deepEqual([replay.problems, replay.missing], [[], []]);
    assert.equal(replay.events, 11 + 8);
    assert.deepEqual(
      replay.commits.map(({ step, weightsDigest }) => [step, weightsDigest]),
      [
        [1, "w1"],
        [2, "w2"],
        [3, "w3"],
      ],
    );
  });

  it("starts new files as it grows and deletes the oldest, and what is left can be replayed", async () => {
    const log = openLog({ fileBytes: 10_000, totalBytes: 30_000 });
    await train(log, 300);
    await log.close();
    const files = await readdir(join(store, "jobs", "j", "events"));
    assert.ok(files.length >= 2 && files.length <= 4, `${files.length} files`);
    const entries = await readEntries(store, "j");
    assert.ok((entries[0]?.seq ?? 0) > 100);
    const replay = replayEvents(entries);
    assert.deepEqual([replay.problems, replay.missing], [[], []]);
    assert.equal(replay.commits.at(-1)?.weightsDigest, "w300");
    assert.ok(replay.commits.length > 10);
  });

  it("does not stop training when the store refuses, and tells what is missing", async () => {
    const log = openLog();
    await train(log, 2);
    let refused = true;
    const broken = openLog({
      fence: {
        verify: async () => {
          if (refused) throw new Error("no");
        },
      },
    });
    await log.close();
    await train(broken, 5);
    refused = false;
    await train(broken, 4);
    await broken.close();
    const replay = replayEvents(await readEntries(store, "j"));
    assert.equal(replay.missing.length, 1);
    assert.deepEqual(replay.problems, []);
    assert.equal(replay.commits.at(-1)?.step, 4);
  });

  it("leaves no empty files behind when the disk is full, and finds its numbers behind those of others", async () => {
    const folder = join(store, "jobs", "j", "events");
    const first = openLog();
    await train(first, 2);
    await first.close();
    const [name = ""] = await readdir(folder);
    for (const number of [20, 30]) await writeFile(join(folder, `${String(number).padStart(10, "0")}.jsonl`), "");
    const second = openLog();
    await train(second, 2);
    await second.close();
    assert.deepEqual(await readdir(folder), [name, "0000000030.jsonl"]);
    const { problems, missing, commits } = replayEvents(await readEntries(store, "j"));
    assert.deepEqual([problems, missing.length, commits.length], [[], 1, 2]);
  });

  it("leaves an unwritable folder alone", async () => {
    await writeFile(join(store, "jobs"), "in the way");
    const log = openLog();
    await train(log, 2);
    await log.close();
  });

  it("tells the whole story of a disturbed job, over pauses, edits and restarts", async () => {
    const cluster = await TestCluster.start();
    try {
      const gate = StepGate.after(8);
      const first = await cluster.worker({ onStep: gate.pass });
      const jobId = await cluster.submit();
      await cluster.until(jobId, ({ step }) => step >= 8);
      await first.kill();
      await cluster.until(jobId, ({ phase }) => phase === JobPhase.WAITING);
      gate.moveTo(14);
      await cluster.worker({ onStep: gate.pass });
      await cluster.until(jobId, ({ step, workers }) => step >= 10 && workers === 1);
      await assert.rejects(cluster.jobs.editJob({ jobId, settings: { "train.steps": "30" } }), /only a paused job can be edited/);
      await cluster.jobs.pauseJob({ jobId });
      gate.moveTo(24);
      await cluster.until(jobId, ({ phase }) => phase === JobPhase.PAUSED);
      await assert.rejects(cluster.jobs.editJob({ jobId, settings: { "batch.shards": "2" } }), /batch.shards.*editable: optimizer/);
      await assert.rejects(cluster.jobs.editJob({ jobId, settings: { "train.steps": "8" } }), /train.steps: must exceed the/);
      const { job } = await cluster.jobs.editJob({ jobId, settings: { "train.steps": "30", "optimizer.learningRate": "1e-4" } });
      assert.equal(job?.totalSteps, 30);
      await cluster.jobs.resumeJob({ jobId });
      await cluster.until(jobId, ({ step }) => step >= 20);
      const stopped = cluster.stopCoordinator();
      gate.open();
      await stopped;
      await cluster.startCoordinator();
      await cluster.worker();
      const done = await cluster.until(jobId, ({ phase }) => phase === JobPhase.SUCCEEDED);
      assert.equal(done.step, 30);
      assert.equal(done.spec?.optimizer?.learningRate, 1e-4);
      const entries = await readEntries(cluster.store, jobId);
      const replay = replayEvents(entries);
      assert.deepEqual([replay.problems, replay.missing], [[], []]);
      assert.equal(replay.commits.at(-1)?.step, 30);
      const edits = entries.flatMap((entry) => (entry.kind === "specChanged" ? [entry.changes] : []));
      assert.deepEqual(edits, [{ "train.steps": { from: 24, to: 30 }, "optimizer.learningRate": { from: 0.0005, to: 0.0001 } }]);
    } finally {
      await cluster.close();
    }
  });

  it("ends a job whose loss is no number at its last good step, and says what to change", async () => {
    const cluster = await TestCluster.start();
    try {
      await cluster.worker({ lossSum: (step) => (step === 9 ? NaN : undefined) });
      const jobId = await cluster.submit();
      const job = await cluster.until(jobId, ({ phase }) => phase === JobPhase.FAILED);
      assert.match(job.reason, /^TRAINING_DIVERGED: the loss sum of step 10 is NaN.*Lower optimizer.learningRate \(0.0005\)/);
      assert.ok(job.step > 5 && job.step <= 9);
      assert.equal(job.checkpointStep, job.step);
    } finally {
      await cluster.close();
    }
  });
});
