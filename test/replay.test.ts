import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Scratch, runSegue, segueJson, tinySpec, withStates } from "./helpers/clusters.js";
import { Hold } from "./helpers/hold.js";
import { submitSpec, waitForJob, waitForSuccess } from "./helpers/jobs.js";

interface ReplayResult {
  readonly equal: boolean;
  readonly events: { readonly events: number; readonly problems: readonly unknown[]; readonly missing: readonly unknown[] };
  readonly weights?: {
    readonly start: number;
    readonly end: number;
    readonly compared: number;
    readonly difference?: { readonly step: number };
  };
}

describe("segue replay", () => {
  const scratch = new Scratch();
  after(() => scratch.close());

  it("computes a disturbed job again from its store, and names the step that differs", async () => {
    const [first, second] = [20, 50].map((step) => new Hold(scratch, step));
    const faults = { coordinator: [first!.fault, second!.fault] };
    const cluster = await scratch.cluster({ workers: 2, threads: 1, faults });
    const jobId = await submitSpec(scratch, cluster, withStates(tinySpec({ steps: 120, everySteps: 40 }), 60));
    await first!.reached(cluster, jobId);
    await cluster.kill("worker-1");
    first!.release();
    await second!.reached(cluster, jobId);
    await cluster.kill("coordinator");
    await cluster.restart("coordinator");
    await waitForSuccess(cluster, jobId);
    const { storeDir } = cluster;
    const replay = (...args: string[]): Promise<ReplayResult> =>
      segueJson(cluster, "replay", jobId, "--store", storeDir, "--threads", "1", ...args);

    const whole = await replay("--from", "1");
    assert.ok(whole.equal && whole.events.events > 50);
    assert.deepEqual([whole.events.problems, whole.events.missing], [[], []]);
    assert.deepEqual([whole.weights?.start, whole.weights?.end], [0, 120]);
    assert.ok((whole.weights?.compared ?? 0) >= 30);
    assert.deepEqual((await replay()).weights?.start, 80);

    const file = join(storeDir, "jobs", jobId, "events");
    const newest = join(file, readdirSync(file).sort().at(-1)!);
    const text = readFileSync(newest, "utf8");
    const digests = [...text.matchAll(/"step":(\d+),[^{}]*"weightsDigest":"([0-9a-f]{64})"/g)].filter(
      ([, step]) => Number(step) > 90,
    );
    const [, step = "", digest = ""] = digests[0] ?? [];
    writeFileSync(newest, text.replaceAll(digest, "f".repeat(64)));
    const { status, stdout } = await runSegue(cluster, "replay", jobId, "--store", storeDir, "--threads", "1");
    assert.equal(status, 1);
    assert.match(stdout, new RegExp(`DIFFERS   step ${step}: recorded f{64}, now ${digest}`));
    assert.ok((await replay("--events-only")).equal, "the events alone still add up");
  });

  it("computes the steps before and after an edit under the spec that was in force", async () => {
    const hold = new Hold(scratch, 10);
    const cluster = await scratch.cluster({ workers: 1, threads: 1, faults: { coordinator: [hold.fault] } });
    const jobId = await submitSpec(scratch, cluster, tinySpec({ steps: 300, everySteps: 0 }));
    await hold.reached(cluster, jobId);
    await segueJson(cluster, "pause", jobId);
    hold.release();
    const { step: editedAt } = await waitForJob(cluster, jobId, ({ phase }) => phase === "PAUSED");
    const steps = String(editedAt + 20);
    await segueJson(cluster, "edit", jobId, "--set", "optimizer.learningRate=0.01", "--set", `train.steps=${steps}`);
    await segueJson(cluster, "resume", jobId);
    await waitForSuccess(cluster, jobId);
    const result = await segueJson<ReplayResult>(
      cluster,
      ...["replay", jobId, "--store", cluster.storeDir, "--threads", "1", "--from", "1"],
    );
    assert.ok(result.equal);
    assert.deepEqual([result.weights?.start, result.weights?.end], [0, editedAt + 20]);
    assert.ok((result.weights?.compared ?? 0) >= 2);
  });
});
