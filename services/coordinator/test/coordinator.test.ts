import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdir, readFile, truncate } from "node:fs/promises";
import { join } from "node:path";
import { decodeSafetensors } from "@segue/core";
import { JobPhase, pullTensor, Tensors } from "@segue/protocol";
import { connectClient } from "@segue/runtime";
import { until } from "../../../test/helpers/patience.js";
import { SPEC, TestCluster } from "./helpers/cluster.js";
import { StepGate } from "./helpers/step-gate.js";

describe("coordinator", () => {
  let cluster: TestCluster;
  let undisturbed: string;
  beforeEach(async () => {
    cluster = await TestCluster.start();
  });
  afterEach(() => cluster.close());

  before(async () => {
    undisturbed = await TestCluster.undisturbedDigest();
  });

  it("trains to the end, keeps the newest checkpoints and releases the worker", async () => {
    const worker = await cluster.worker();
    const jobId = await cluster.submit();
    assert.equal(await cluster.digest(jobId), undisturbed);
    const { job } = await cluster.jobs.getJob({ jobId });
    assert.equal(job?.step, 24);
    assert.equal(job.attempt, 1);
    assert.equal(job.tokens, 24n * 64n);
    const { checkpoints } = await cluster.jobs.listCheckpoints({ jobId });
    assert.deepEqual(
      checkpoints.map(({ step }) => step),
      [24, 18],
    );
    await until(() => worker.log.at(-1) === "released", "the worker to be released");
  });

  it("writes a digest that anybody can compute from the files", async () => {
    await cluster.worker();
    const jobId = await cluster.submit();
    const digest = await cluster.digest(jobId);
    const folder = join(cluster.store, "jobs", jobId, "checkpoints", "step-00000024");
    const hash = createHash("sha256");
    const tensors = async (file: string) => [...decodeSafetensors(await readFile(join(folder, `${file}.safetensors`)))];
    const moments = await tensors("optimizer");
    const momentsNamed = (prefix: string) => moments.filter(([name]) => name.startsWith(prefix));
    // Vectors of this size are one block each.
    for (const vector of [await tensors("model"), momentsNamed("exp_avg."), momentsNamed("exp_avg_sq.")]) {
      const block = createHash("sha256");
      for (const [, { data }] of vector) block.update(data);
      hash.update(block.digest());
    }
    for (const [, { data }] of await tensors("lanes")) hash.update(data);
    assert.equal(hash.update(await readFile(join(folder, "cursor.json"))).digest("hex"), digest);
    assert.deepEqual((await readdir(folder)).sort(), [
      "config.json",
      "cursor.json",
      "lanes.safetensors",
      "manifest.json",
      "model.safetensors",
      "optimizer.safetensors",
    ]);
  });

  it("writes every checkpoint that is due, however slowly the weights come", async () => {
    const gate = StepGate.after(8);
    await cluster.worker({ modelMs: 40, onStep: gate.pass });
    const jobId = await cluster.submit(SPEC.replace("everySteps: 6, keepLast: 2", "everySteps: 2, keepLast: 12"));
    await cluster.until(jobId, ({ step }) => step >= 8);
    await cluster.worker({ modelMs: 40 });
    gate.open();
    assert.equal(await cluster.digest(jobId), undisturbed);
    assert.equal((await cluster.jobs.listCheckpoints({ jobId })).checkpoints.length, 12);
  });

  it("serves the files of a checkpoint and nothing else", async () => {
    await cluster.worker();
    const jobId = await cluster.submit();
    await cluster.digest(jobId);
    const client = connectClient(Tensors, cluster.address);
    const { data } = await pullTensor(client, `job/${jobId}/checkpoint/24/config.json`);
    assert.equal((JSON.parse(Buffer.from(data).toString()) as { model_type: string }).model_type, "mamba2");
    await assert.rejects(pullTensor(client, `job/${jobId}/checkpoint/24/../../job.json`), /no tensor/);
    client.close();
  });

  it("gives the same bits with one, two and three workers", async () => {
    await Promise.all([cluster.worker(), cluster.worker(), cluster.worker()]);
    const two = await cluster.submit(`${SPEC}workers: { min: 2, max: 2 }`);
    assert.equal(await cluster.digest(two), undisturbed);
    const three = await cluster.submit(`${SPEC}workers: { min: 3, max: 3 }`);
    assert.equal(await cluster.digest(three), undisturbed);
  });

  it("recovers with the same bits when a worker dies in mid-round, and another falls silent", async () => {
    const gate = StepGate.after(4);
    const held = { onStep: gate.pass };
    const [first, second] = await Promise.all([cluster.worker(held), cluster.worker(held), cluster.worker(held)]);
    const jobId = await cluster.submit(`${SPEC}workers: { min: 1, max: 3 }`);
    await cluster.until(jobId, ({ step }) => step >= 4);
    await first.kill();
    gate.moveTo(14);
    await cluster.until(jobId, ({ step }) => step >= 10);
    second.mute();
    await until(
      async () => !(await cluster.jobs.listWorkers({})).workers.some(({ workerId }) => workerId === second.id),
      "its end",
    );
    gate.open();
    assert.equal(await cluster.digest(jobId), undisturbed);
    assert.equal((await cluster.jobs.getJob({ jobId })).job?.attempt, 1);
  });

  it("goes back to the newest checkpoint when all workers die", async () => {
    const first = await cluster.worker({ onStep: StepGate.after(8).pass });
    const jobId = await cluster.submit();
    await cluster.until(jobId, ({ step }) => step >= 8);
    await first.kill();
    await cluster.until(jobId, ({ phase }) => phase === JobPhase.WAITING);
    await cluster.worker();
    assert.equal(await cluster.digest(jobId), undisturbed);
    assert.equal((await cluster.jobs.getJob({ jobId })).job?.attempt, 2);
  });

  it("takes a newcomer in at a round boundary and lets a leaver go", async () => {
    const gate = StepGate.after(3);
    const first = await cluster.worker({ onStep: gate.pass });
    const jobId = await cluster.submit();
    await cluster.until(jobId, ({ step }) => step >= 3);
    await cluster.worker({ onStep: gate.pass });
    await cluster.untilAttached(2);
    gate.moveTo(14);
    await cluster.until(jobId, ({ workers }) => workers === 2);
    first.drain();
    gate.moveTo(20);
    await cluster.until(jobId, ({ workers, step }) => workers === 1 && step > 6);
    gate.open();
    await until(() => first.log.includes("released"), "the leaver to be released");
    assert.equal(await cluster.digest(jobId), undisturbed);
  });

  it("saves what only a leaver holds", async () => {
    const gate = StepGate.after(8);
    const first = await cluster.worker({ onStep: gate.pass });
    const jobId = await cluster.submit();
    await cluster.until(jobId, ({ step }) => step >= 8);
    first.drain();
    gate.open();
    const waiting = await cluster.until(jobId, ({ phase }) => phase === JobPhase.WAITING);
    assert.equal(waiting.checkpointStep, waiting.step);
    await cluster.worker();
    assert.equal(await cluster.digest(jobId), undisturbed);
  });

  it("continues by itself, with the same bits, after it was stopped and started", async () => {
    const gate = StepGate.after(8);
    await cluster.worker({ onStep: gate.pass });
    const jobId = await cluster.submit();
    await cluster.until(jobId, ({ step }) => step >= 8);
    const stopped = cluster.stopCoordinator();
    gate.open();
    await stopped;
    await cluster.startCoordinator();
    const { job } = await cluster.jobs.getJob({ jobId });
    assert.ok(job && job.step >= 8 && job.checkpointStep === job.step);
    await cluster.worker();
    assert.equal(await cluster.digest(jobId), undisturbed);
  });

  it("passes a damaged newest checkpoint over", async () => {
    const gate = StepGate.after(13);
    await cluster.worker({ onStep: gate.pass });
    const jobId = await cluster.submit();
    await cluster.until(jobId, ({ step }) => step >= 13);
    const stopped = cluster.stopCoordinator();
    gate.open();
    await stopped;
    const parent = join(cluster.store, "jobs", jobId, "checkpoints");
    const newest = (await readdir(parent)).sort().at(-1)!;
    await truncate(join(parent, newest, "optimizer.safetensors"), 100);
    await cluster.startCoordinator();
    await cluster.worker();
    assert.equal(await cluster.digest(jobId), undisturbed);
  });

  it("pauses with a checkpoint and resumes", async () => {
    const gate = StepGate.after(8);
    const worker = await cluster.worker({ onStep: gate.pass });
    const jobId = await cluster.submit();
    await cluster.until(jobId, ({ step }) => step >= 8);
    await cluster.jobs.pauseJob({ jobId });
    gate.open();
    const paused = await cluster.until(jobId, ({ phase }) => phase === JobPhase.PAUSED);
    assert.equal(paused.checkpointStep, paused.step);
    await until(() => worker.log.includes("released"), "the worker to be released");
    await cluster.jobs.pauseJob({ jobId });
    await cluster.jobs.resumeJob({ jobId });
    assert.equal(await cluster.digest(jobId), undisturbed);
  });

  it("cancels at once and for good", async () => {
    const gate = StepGate.after(8);
    const worker = await cluster.worker({ onStep: gate.pass });
    const jobId = await cluster.submit();
    await cluster.until(jobId, ({ step }) => step >= 8);
    const { job } = await cluster.jobs.cancelJob({ jobId });
    gate.open();
    assert.equal(job?.phase, JobPhase.CANCELLED);
    await cluster.jobs.cancelJob({ jobId });
    await assert.rejects(cluster.jobs.resumeJob({ jobId }), /CANCELLED/);
    assert.ok((await cluster.jobs.listCheckpoints({ jobId })).checkpoints.length > 0);
    const next = await cluster.submit();
    assert.equal(await cluster.digest(next), undisturbed);
    await until(() => worker.log.includes("released"), "the worker to be released");
  });

  it("trains several jobs in order of submission", async () => {
    const first = await cluster.submit();
    const second = await cluster.submit();
    await cluster.worker();
    await cluster.until(second, ({ phase }) => phase === JobPhase.SUCCEEDED);
    assert.equal((await cluster.jobs.getJob({ jobId: first })).job?.phase, JobPhase.SUCCEEDED);
  });

  it("fails a job whose two workers disagree again when the round is repeated, naming both", async () => {
    await Promise.all([cluster.worker({ name: "good" }), cluster.worker({ name: "bad", wrong: () => true })]);
    const jobId = await cluster.submit(`${SPEC}workers: { min: 2, max: 2 }`);
    const job = await cluster.until(jobId, ({ phase }) => phase === JobPhase.FAILED);
    assert.match(job.reason, /DIGEST_MISMATCH/);
    assert.match(job.reason, /good-.*device of good/);
    assert.match(job.reason, /bad-.*device of bad/);
  });

  it("ends a job with its members' error when generation after generation fails the same way", async () => {
    const failsToJoin = { code: "ENGINE_FAILED", message: "offset is out of bounds" };
    const worker = await cluster.worker({ name: "broken", failsToJoin });
    const jobId = await cluster.submit(SPEC);
    const job = await cluster.until(jobId, ({ phase }) => phase === JobPhase.FAILED);
    assert.match(job.reason, /ENGINE_FAILED.*3 failures.*offset is out of bounds/);
    assert.deepEqual(
      worker.log.filter((line) => line.startsWith("failed")),
      ["failed 1", "failed 2", "failed 3"],
    );
  });
});
