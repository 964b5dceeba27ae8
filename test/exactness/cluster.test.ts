import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Scratch, segueJson } from "../helpers/clusters.js";
import { exactnessSpec, faultsSuffered, supervisedCluster, trainDisturbed, undisturbedDigest } from "../helpers/disturbed.js";
import { Hold } from "../helpers/hold.js";
import { submitSpec, waitForJob } from "../helpers/jobs.js";

const isFull = process.env["EXACTNESS"] === "full";
/** Cases that take a while or differ little from others. */
const full = isFull ? it : (): void => undefined;

describe("exactness: whatever happens to the cluster", () => {
  const scratch = new Scratch();
  afterEach(() => scratch.close());

  let undisturbed = "";
  before(async () => {
    undisturbed = await undisturbedDigest(scratch);
    assert.match(undisturbed, /^200 [0-9a-f]{64}$/);
  });

  const pairs = exactnessSpec({ minWorkers: 2, maxWorkers: 2 });

  for (const workers of isFull ? [2, 3, 4] : [4]) {
    it(`${workers} workers end in the bits of one`, async () => {
      const cluster = await supervisedCluster(scratch, { workers });
      assert.equal(await trainDisturbed(scratch, cluster, exactnessSpec({ minWorkers: workers })), undisturbed);
    });
  }

  full("all processes killed at once and started again", async () => {
    const dir = scratch.folder();
    const hold = new Hold(scratch, 70);
    const first = await scratch.cluster({ dir, workers: 2, engine: "cpu", threads: 1, faults: { coordinator: [hold.fault] } });
    const jobId = await submitSpec(scratch, first, pairs);
    await hold.reached(first, jobId);
    first.killAll();
    await first.close();
    const second = await scratch.cluster({ dir, workers: 2, engine: "cpu", threads: 1 });
    await waitForJob(second, jobId, ({ phase }) => phase === "SUCCEEDED");
    const [newest] = await segueJson<{ step: number; digest: string }[]>(second, "checkpoints", jobId);
    assert.equal(`${newest?.step} ${newest?.digest}`, undisturbed);
  });

  full("Redis killed and started again", async () => {
    const hold = new Hold(scratch, 40);
    const cluster = await supervisedCluster(scratch, { workers: 2, faults: { coordinator: [hold.fault] } });
    const digest = await trainDisturbed(scratch, cluster, pairs, async (jobId) => {
      await hold.reached(cluster, jobId);
      const back = cluster.killRedis(1_000);
      hold.release();
      await back;
    });
    assert.equal(digest, undisturbed);
  });

  full("a partition of ten seconds between two workers", async () => {
    const hold = new Hold(scratch, 40);
    const cluster = await supervisedCluster(scratch, { workers: 2, faultyLinks: true, faults: { coordinator: [hold.fault] } });
    const digest = await trainDisturbed(scratch, cluster, pairs, async (jobId) => {
      await hold.reached(cluster, jobId);
      cluster.link("worker-1").cut();
      hold.release();
      await sleep(10_000);
      cluster.link("worker-1").heal();
    });
    assert.equal(digest, undisturbed);
  });

  full("a network that delays everything between the workers", async () => {
    const cluster = await supervisedCluster(scratch, { workers: 2, faultyLinks: true });
    for (const name of ["worker-1", "worker-2"]) cluster.link(name).delay(5);
    assert.equal(await trainDisturbed(scratch, cluster, pairs), undisturbed);
  });

  full("a reply dropped and another one late", async () => {
    const cluster = await supervisedCluster(scratch, {
      workers: 2,
      faults: {
        "worker-1": [{ point: "worker.tensorAsked", action: "drop" }],
        "worker-2": [{ point: "worker.tensorAsked", action: "delay", afterMs: 1_500 }],
      },
    });
    assert.equal(await trainDisturbed(scratch, cluster, pairs), undisturbed);
    assert.equal(faultsSuffered(cluster, "worker-1") + faultsSuffered(cluster, "worker-2"), 2);
  });

  full("paused and resumed", async () => {
    const hold = new Hold(scratch, 40);
    const cluster = await supervisedCluster(scratch, { workers: 2, faults: { coordinator: [hold.fault] } });
    const digest = await trainDisturbed(scratch, cluster, pairs, async (jobId) => {
      await hold.reached(cluster, jobId);
      await segueJson(cluster, "pause", jobId);
      hold.release();
      await waitForJob(cluster, jobId, ({ phase }) => phase === "PAUSED");
      await segueJson(cluster, "resume", jobId);
    });
    assert.equal(digest, undisturbed);
  });

  it("a worker replaced by another and a third that joins in mid-run", async () => {
    const hold = new Hold(scratch, 30);
    const cluster = await supervisedCluster(scratch, { workers: 2, faults: { coordinator: [hold.fault] } });
    const digest = await trainDisturbed(scratch, cluster, exactnessSpec({ minWorkers: 2 }), async (jobId) => {
      await hold.reached(cluster, jobId);
      await cluster.addWorker();
      const drained = cluster.kill("worker-1", "SIGTERM");
      hold.release();
      await drained;
      await cluster.addWorker();
    });
    assert.equal(digest, undisturbed);
  });
});
