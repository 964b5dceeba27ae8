import assert from "node:assert/strict";
import { JobPhase, WorkerState } from "@segue/protocol";
import { until } from "../../../test/helpers/patience.js";
import { SPEC, TestCluster } from "./helpers/cluster.js";
import { readEvents } from "./helpers/events.js";
import { StepGate } from "./helpers/step-gate.js";

describe("membership", () => {
  let cluster: TestCluster;
  let undisturbed: string;
  beforeEach(async () => {
    cluster = await TestCluster.start();
  });
  afterEach(() => cluster.close());

  before(async () => {
    undisturbed = await TestCluster.undisturbedDigest();
  });

  const workerOf = async (name: string) => {
    const { workers } = await cluster.jobs.listWorkers({});
    return workers.find((worker) => worker.name === name);
  };

  it("expels a worker that the majority outvotes, records both digests, and goes on without it", async () => {
    const [, , bad] = await Promise.all([
      cluster.worker(),
      cluster.worker(),
      cluster.worker({ name: "bad", wrong: (step) => step >= 4 }),
    ]);
    const jobId = await cluster.submit(`${SPEC}workers: { min: 2, max: 3 }`);
    assert.equal(await cluster.digest(jobId), undisturbed);
    assert.equal((await workerOf("bad"))?.state, WorkerState.EXPELLED);
    const expelled = (await readEvents(cluster.store, jobId)).find(({ event }) => event.type === "membersExpelled")?.event;
    assert.ok(expelled?.type === "membersExpelled");
    assert.deepEqual(
      expelled.workers.map(({ workerId }) => workerId),
      [bad.id],
    );
    assert.notEqual(expelled.workers[0]?.weightsDigest, expelled.weightsDigest);
    const next = await cluster.submit(`${SPEC}workers: { min: 3, max: 3 }`);
    const waiting = await cluster.until(next, ({ reason }) => reason.includes("expelled"));
    assert.match(waiting.reason, /0 of at least 3; 2 free, which is too few to start, 1 expelled/);
    await bad.kill();
    await cluster.worker({ name: "bad" });
    assert.equal(await cluster.digest(next), undisturbed);
  });

  it("forms generations of equal GPUs only, and says which workers it leaves aside", async () => {
    const gate = StepGate.after(3);
    const cuda = { engines: ["cuda", "cpu"], onStep: gate.pass };
    const left = await cluster.worker({ ...cuda, name: "a", gpu: "NVIDIA A100" });
    const used = await Promise.all(["h1", "h2"].map((name) => cluster.worker({ ...cuda, name, gpu: "NVIDIA H100" })));
    const jobId = await cluster.submit(`${SPEC}workers: { min: 2, max: 3 }`);
    const running = await cluster.until(jobId, ({ workers, reason }) => workers > 0 && reason !== "");
    assert.deepEqual(running.members.map(({ workerId }) => workerId).sort(), used.map(({ id }) => id).sort());
    assert.match(running.reason, /^left aside: 1 with NVIDIA A100; the job's members have NVIDIA H100/);
    await left.kill();
    await cluster.until(jobId, ({ reason, phase }) => phase === JobPhase.RUNNING && reason === "");
    gate.open();
    assert.equal(await cluster.digest(jobId), undisturbed);
    const mixed = await cluster.submit(`${SPEC}workers: { min: 3, max: 3 }`);
    await cluster.worker({ ...cuda, name: "a", gpu: "NVIDIA A100" });
    const waiting = await cluster.until(mixed, ({ reason }) => reason.includes("no kind"));
    assert.match(waiting.reason, /0 of at least 3; 3 free \(2 with NVIDIA H100, 1 with NVIDIA A100\), of no kind enough to start/);
  });

  it("tells a worker's GPU and what it is doing", async () => {
    await cluster.worker({ name: "gpu", engines: ["cuda"], gpu: "NVIDIA H100" });
    const info = await until(async () => {
      const worker = await workerOf("gpu");
      return worker?.gpuLoad && worker;
    }, "a heartbeat");
    assert.equal(info.gpu?.name, "NVIDIA H100");
    assert.equal(info.gpuLoad?.memoryUsedBytes, 2n ** 30n);
    assert.equal(info.gpuLoad?.temperatureCelsius, undefined);
  });

  it("repeats a round once when two workers disagree", async () => {
    let wrongs = 0;
    await Promise.all([cluster.worker(), cluster.worker({ wrong: (step) => step === 7 && wrongs++ === 0 })]);
    const jobId = await cluster.submit(`${SPEC}workers: { min: 2, max: 2 }`);
    assert.equal(await cluster.digest(jobId), undisturbed);
    const events = await readEvents(cluster.store, jobId);
    assert.equal(events.filter(({ event }) => event.type === "roundDisputed").length, 1);
  });

  it("shows a straggler, and moves it off when a spare worker comes", async () => {
    const spec = `${SPEC.replace("steps: 24", "steps: 60")}workers: { min: 2, max: 2 }`;
    const gate = new StepGate(30);
    const held = { onStep: gate.pass };
    await Promise.all([cluster.worker({ ...held, name: "quick" }), cluster.worker({ ...held, name: "slow", computeMs: 5 })]);
    const jobId = await cluster.submit(spec);
    const job = await cluster.until(jobId, ({ members }) => members.some(({ straggler }) => straggler));
    assert.equal(job.members.find(({ straggler }) => straggler)?.workerId, (await workerOf("slow"))?.workerId);
    const slow = await workerOf("slow");
    assert.ok(slow?.straggler && slow.shardMs > 2 * ((await workerOf("quick"))?.shardMs ?? 0));
    await cluster.worker({ ...held, name: "spare" });
    await cluster.untilAttached(3);
    gate.moveTo(55);
    await cluster.until(jobId, ({ members }) => members.length === 2 && members.every(({ straggler }) => !straggler));
    gate.open();
    await cluster.digest(jobId);
    const formed = (await readEvents(cluster.store, jobId)).flatMap(({ event }) => {
      return event.type === "generationFormed" ? [event.workerIds.map((id) => id.split("-")[0])] : [];
    });
    assert.deepEqual(
      formed.map((names) => [...names].sort()),
      [
        ["quick", "slow"],
        ["quick", "spare"],
      ],
    );
  });

  it("keeps a straggler while no spare worker is there, and with stragglerFactor 0", async () => {
    for (const factor of [2, 0]) {
      await Promise.all([cluster.worker({ name: "quick" }), cluster.worker({ name: "slow", computeMs: 50 })]);
      if (factor === 0) await cluster.worker({ name: "spare" });
      const jobId = await cluster.submit(`${SPEC}workers: { min: 2, max: 2, stragglerFactor: ${factor} }`);
      assert.equal(await cluster.digest(jobId), undisturbed);
      const events = await readEvents(cluster.store, jobId);
      assert.equal(events.filter(({ event }) => event.type === "generationFormed").length, 1);
    }
  });

  it("drains a worker on request without a repeated round", async () => {
    const gate = StepGate.after(4);
    const held = { onStep: gate.pass };
    const [first] = await Promise.all([cluster.worker({ ...held, name: "first" }), cluster.worker({ ...held, name: "second" })]);
    const jobId = await cluster.submit(`${SPEC}workers: { min: 1, max: 2 }`);
    await cluster.until(jobId, ({ step, workers }) => step >= 4 && workers === 2);
    const { worker } = await cluster.jobs.drainWorker({ workerId: first.id });
    assert.equal(worker?.state, WorkerState.DRAINING);
    gate.open();
    assert.equal(await cluster.digest(jobId), undisturbed);
    assert.equal((await workerOf("first"))?.state, WorkerState.DRAINED);
    assert.ok(first.log.includes("released"));
    const events = await readEvents(cluster.store, jobId);
    const started = events.filter(({ event }) => event.type === "roundStarted").length;
    assert.equal(events.filter(({ event }) => event.type === "roundCommitted").length, started);
    await assert.rejects(cluster.jobs.drainWorker({ workerId: "nobody" }), /No worker nobody is attached/);
  });

  it("serves jobs of higher priority first", async () => {
    const spec = (priority: number): string => `${SPEC}priority: ${priority}\nworkers: { min: 1, max: 1 }\n`;
    const running = await cluster.submit(spec(0));
    const gate = StepGate.after(2);
    const trained = new Set<string>();
    await cluster.worker({
      onStep: (step, jobId) => {
        trained.add(jobId);
        return gate.pass(step);
      },
    });
    await cluster.until(running, ({ step }) => step >= 2);
    const low = await cluster.submit(spec(-1));
    const high = await cluster.submit(spec(5));
    assert.match(
      (await cluster.until(low, ({ reason }) => reason.includes("busy"))).reason,
      /0 of at least 1; 1 busy with other jobs/,
    );
    gate.open();
    await cluster.until(low, ({ phase }) => phase === JobPhase.SUCCEEDED);
    assert.deepEqual([...trained], [running, high, low]);
  });
});
