import assert from "node:assert/strict";
import { execFile, execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { appendFile, mkdtemp, readdir, readFile, rm, stat, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { JobPhase, Jobs, type Job } from "@segue/protocol";
import { connectClient } from "@segue/runtime";
import { PATIENCE_MS, until } from "../../../test/helpers/patience.js";
import { SPEC, TestCluster } from "./helpers/cluster.js";
import { startFakeWorker } from "./helpers/fake-worker.js";
import { StepGate } from "./helpers/step-gate.js";

const run = promisify(execFile);
const LONG = SPEC.replace("steps: 24", "steps: 300").replace("everySteps: 6, keepLast: 2", "everySteps: 20, keepLast: 1");

/** A file system of 4 MiB; undefined where this process may not mount one. */
async function mountSmallDisk(): Promise<string | undefined> {
  const folder = await mkdtemp(join(tmpdir(), "segue-disk-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], { stdio: "ignore" });
    return folder;
  } catch {
    await rm(folder, { recursive: true });
    return undefined;
  }
}

async function fill(path: string): Promise<void> {
  const block = new Uint8Array(4_096);
  for (;;) {
    try {
      await appendFile(path, block);
    } catch {
      return;
    }
  }
}

describe("a full disk", () => {
  let disk: string | undefined;
  let cluster: TestCluster;

  before(async function () {
    disk = await mountSmallDisk();
    if (disk !== undefined) return;
    console.log("      skipped: mounting a small file system takes root; the test with a limit on file sizes runs anyway");
    this.skip();
  });
  beforeEach(async () => {
    cluster = await TestCluster.start(disk === undefined ? {} : { parent: disk });
  });
  afterEach(() => cluster.close());
  after(async () => {
    if (disk === undefined) return;
    await run("umount", [disk]);
    await rm(disk, { recursive: true });
  });

  it("stops nothing: training goes on and says so, a pause waits, and all is well when there is room again", async () => {
    const undisturbed = await TestCluster.undisturbedDigest(LONG);

    const ballast = join(disk!, "ballast");
    const gate = new StepGate(30);
    await cluster.worker({ onStep: gate.pass });
    const jobId = await cluster.submit(LONG);
    await cluster.until(jobId, ({ checkpointStep }) => checkpointStep >= 20);
    await fill(ballast);
    gate.moveTo(60);

    const trouble = await cluster.until(jobId, ({ notDurable }) => notDurable !== "");
    assert.match(trouble.notDurable, /could not be written to .*ENOSPC.*Free some space there \(\d+ bytes are free\)/);
    // What the failed attempt had written is free again.
    await fill(ballast);
    gate.moveTo(200);
    const later = await cluster.until(jobId, ({ step, notDurable }) => step >= trouble.step + 40 && notDurable !== "");
    assert.equal(later.phase, JobPhase.RUNNING);
    await assert.rejects(cluster.submit(), /no room for .*job.json/);

    await cluster.jobs.pauseJob({ jobId });
    gate.open();
    const lease = () => readFile(join(cluster.store, "lock"), "utf8");
    const leaseBefore = await lease();
    await until(async () => (await lease()) !== leaseBefore, "the lease to be renewed on a full disk too");
    assert.equal((await cluster.jobs.getJob({ jobId })).job?.phase, JobPhase.PAUSING, "the committed step would be lost");

    await rm(ballast);
    const paused = await cluster.until(jobId, ({ phase }) => phase === JobPhase.PAUSED);
    assert.equal(paused.checkpointStep, paused.step);
    assert.equal(paused.notDurable, "");
    const recordPath = join(cluster.store, "jobs", jobId, "job.json");
    await until(async () => (await readFile(recordPath, "utf8")).includes('"phase": "PAUSED"'), "the record of the pause");
    await cluster.jobs.resumeJob({ jobId });
    assert.equal(await cluster.digest(jobId), undisturbed);
    const events = join(cluster.store, "jobs", jobId, "events");
    const sizes = await Promise.all((await readdir(events)).map(async (name) => (await stat(join(events, name))).size));
    assert.ok(sizes.length > 1 && sizes.every((bytes) => bytes > 0), `event logs of ${sizes.join(", ")} bytes`);
  });

  it("makes a checkpoint take the place of the one that retention would delete after it", async () => {
    const ballast = join(disk!, "ballast");
    const gate = new StepGate(50);
    await cluster.worker({ onStep: gate.pass });
    const jobId = await cluster.submit(LONG.replace("keepLast: 1", "keepLast: 2"));
    await cluster.until(jobId, ({ checkpointStep }) => checkpointStep >= 40);
    await fill(ballast);
    // The events that go on being recorded need some room; a checkpoint is more than twice as large.
    await truncate(ballast, (await stat(ballast)).size - 32_768);
    gate.open();
    const { notDurable } = await cluster.until(jobId, ({ checkpointStep }) => checkpointStep >= 100);
    assert.equal(notDurable, "");
    await cluster.jobs.cancelJob({ jobId }).catch(() => undefined);
    await rm(ballast);
  });
});

describe("a coordinator that may not write big files", () => {
  let folder: string;
  let child: ChildProcess | undefined;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "segue-limit-"));
  });
  afterEach(async () => {
    child?.kill("SIGKILL");
    await rm(folder, { recursive: true });
  });

  it("goes on without checkpoints, warns with the free bytes, and writes them when it may", async function () {
    if (process.platform !== "linux") this.skip();
    const main = fileURLToPath(new URL("../src/main.ts", import.meta.url));
    const process_ = spawn(process.execPath, ["--import", "tsx", "--conditions=segue-source", main], {
      env: { ...process.env, SEGUE_LISTEN: "127.0.0.1:0", SEGUE_STORE: join(folder, "store"), SEGUE_READY_FD: "3" },
      stdio: ["ignore", "ignore", "pipe", "pipe"],
    });
    child = process_;
    const warnings: { event: string; freeBytes?: number }[] = [];
    createInterface({ input: process_.stderr as Readable }).on("line", (line) => {
      if (line.startsWith("{")) warnings.push(JSON.parse(line) as { event: string });
    });
    const [ready] = (await once(process_.stdio[3] as Readable, "data")) as [Buffer];
    const { address } = JSON.parse(ready.toString()) as { address: string };
    const limit = (softBytes: string) => run("prlimit", ["--pid", String(process_.pid), `--fsize=${softBytes}:unlimited`]);
    await limit("20000");

    const jobs = connectClient(Jobs, address);
    const gate = new StepGate(60);
    const worker = await startFakeWorker({ coordinator: address, name: "limited", onStep: gate.pass });
    try {
      const { job: submitted } = await jobs.submitJob({ source: { case: "yaml", value: LONG } });
      const { jobId } = submitted!;
      const jobUntil = async (condition: (job: Job) => boolean): Promise<Job> => {
        const updates = jobs.watchJob({ jobId }, { deadlineMs: PATIENCE_MS });
        for await (const { job } of updates) if (job && condition(job)) return job;
        throw new Error("the job ended");
      };
      const trouble = await jobUntil(({ notDurable }) => notDurable !== "");
      assert.match(trouble.notDurable, /EFBIG/);
      gate.moveTo(200);
      await jobUntil(({ step }) => step >= trouble.step + 40);
      await limit("unlimited");
      gate.moveTo(250);
      const well = await jobUntil(({ notDurable, checkpointStep }) => notDurable === "" && checkpointStep > 0);
      assert.ok(well.checkpointStep >= trouble.step);
      const [warning] = warnings.filter(({ event }) => event === "checkpointFailed");
      assert.ok((warning?.freeBytes ?? 0) > 0);
      assert.ok(warnings.some(({ event }) => event === "durableAgain"));
    } finally {
      await worker.kill();
      jobs.close();
      process_.kill("SIGTERM");
      await once(process_, "exit");
    }
  });
});
