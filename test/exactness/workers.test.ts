import assert from "node:assert/strict";
import type { Fault } from "@segue/runtime";
import { Scratch, segueJson, tinySpec, withStates } from "../helpers/clusters.js";
import { faultsSuffered, supervisedCluster, trainDisturbed } from "../helpers/disturbed.js";
import { Hold } from "../helpers/hold.js";
import { finalDigest, jobOf, submitSpec, waitForJob, waitForSuccess } from "../helpers/jobs.js";

describe("exactness", () => {
  const scratch = new Scratch();
  afterEach(() => scratch.close());

  const trainWith = async (workers: number, spec: string, engine: "cpu" | "tfjs"): Promise<string> => {
    const cluster = await scratch.cluster({ workers, engine, threads: 1 });
    const jobId = await submitSpec(scratch, cluster, spec);
    const job = await waitForSuccess(cluster, jobId);
    assert.match(job.engine, new RegExp(engine));
    return finalDigest(cluster, jobId);
  };

  for (const engine of ["tfjs", "cpu"] as const) {
    it(`${engine}: one, two and three workers end in the same bits after 20 steps`, async () => {
      const digests = [];
      for (const workers of [1, 2, 3]) {
        const spec = tinySpec({ minWorkers: workers });
        digests.push(await trainWith(workers, spec, engine));
        await scratch.close();
      }
      assert.match(digests[0]!, /^20 [0-9a-f]{64}$/);
      assert.deepEqual(digests, [digests[0], digests[0], digests[0]]);
    });
  }

  it("a change of one setting changes the bits, so the digest can tell", async () => {
    const plain = await trainWith(1, tinySpec(), "cpu");
    const other = await trainWith(1, tinySpec().replace("learningRate: 0.01", "learningRate: 0.0100001"), "cpu");
    assert.notEqual(plain, other);
  });

  it("gradients through three segments: one worker, and two of which one is killed, end in the same bits", async () => {
    // Chains of five segments end inside steps of three.
    const tbptt = "tbptt: { segmentTokens: 32, segmentsPerStep: 3, gradient: full, segmentsPerChain: 5 }";
    const [alone, pair] = [1, 2].map((minWorkers) => tinySpec({ steps: 40, minWorkers }).replace(/^tbptt: .*$/m, tbptt));
    const undisturbed = await trainWith(1, alone!, "cpu");
    await scratch.close();
    assert.notEqual(await trainWith(1, alone!.replace("gradient: full", "gradient: truncated"), "cpu"), undisturbed);
    await scratch.close();

    const faults: Fault[] = [{ point: "worker.computing", action: "kill", fromStep: 15 }];
    const cluster = await supervisedCluster(scratch, { workers: 2, faults: { "worker-2": faults } });
    assert.equal(await trainDisturbed(scratch, cluster, pair!), undisturbed);
    assert.equal(faultsSuffered(cluster, "worker-2"), 1);
  });

  it("states passed on, dropped and begun from noise over a curriculum: the same bits on two workers, killed, paused and resumed", async () => {
    const [alone, pair] = [1, 2].map((minWorkers) => withStates(tinySpec({ steps: 400, minWorkers }), 350));
    const undisturbed = await trainWith(1, alone!, "cpu");
    await scratch.close();
    assert.notEqual(await trainWith(1, alone!.replace("initialState: fittedNoise", "initialState: zero"), "cpu"), undisturbed);
    await scratch.close();

    const faults: Fault[] = [{ point: "worker.computing", action: "kill", fromStep: 40 }];
    const hold = new Hold(scratch, 60);
    const cluster = await supervisedCluster(scratch, { workers: 2, faults: { "worker-2": faults, coordinator: [hold.fault] } });
    const digest = await trainDisturbed(scratch, cluster, pair!, async (jobId) => {
      await hold.reached(cluster, jobId);
      await segueJson(cluster, "pause", jobId);
      hold.release();
      const paused = await waitForJob(cluster, jobId, ({ phase }) => phase === "PAUSED");
      assert.ok(paused.step < 350, `paused at ${paused.step}, in the middle of a stage`);
      await segueJson(cluster, "resume", jobId);
    });
    assert.equal(digest, undisturbed);
    assert.equal(faultsSuffered(cluster, "worker-2"), 1);
  });

  const long = tinySpec({ steps: 400, minWorkers: 2 });

  it("a job interrupted by SIGTERM of all processes and resumed ends as if undisturbed", async () => {
    const undisturbed = await trainWith(2, long, "cpu");

    const dir = scratch.folder();
    const hold = new Hold(scratch, 40);
    const first = await scratch.cluster({ dir, workers: 2, engine: "cpu", threads: 1, faults: { coordinator: [hold.fault] } });
    const jobId = await submitSpec(scratch, first, long);
    const interrupted = await hold.reached(first, jobId);
    assert.equal(interrupted.phase, "RUNNING");
    // All at the same moment, as a node that shuts down would.
    const ended = first.names.map((name) => first.kill(name, "SIGTERM"));
    hold.release();
    await Promise.all(ended);
    await first.close();

    const second = await scratch.cluster({ dir, workers: 2, engine: "cpu", threads: 1 });
    assert.ok((await jobOf(second, jobId)).step < 400);
    await waitForSuccess(second, jobId);
    assert.equal(await finalDigest(second, jobId), undisturbed);
  });

  it("a job paused, resumed, and robbed of a worker by SIGKILL ends as if undisturbed", async () => {
    const undisturbed = await trainWith(2, long, "cpu");

    const [toPause, toRob] = [20, 100].map((step) => new Hold(scratch, step));
    const faults = { coordinator: [toPause!.fault, toRob!.fault] };
    const cluster = await scratch.cluster({ workers: 3, engine: "cpu", threads: 1, faults });
    const jobId = await submitSpec(scratch, cluster, long);
    await toPause!.reached(cluster, jobId);
    await segueJson(cluster, "pause", jobId);
    toPause!.release();
    const paused = await waitForJob(cluster, jobId, ({ phase }) => phase === "PAUSED");
    assert.ok(paused.step < 400, `paused at ${paused.step}`);
    await segueJson(cluster, "resume", jobId);
    await toRob!.reached(cluster, jobId);
    await cluster.kill("worker-1", "SIGKILL");
    toRob!.release();
    await waitForSuccess(cluster, jobId);
    assert.equal(await finalDigest(cluster, jobId), undisturbed);
  });
});
