import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Scratch, runSegue, tinySpec, withStates } from "./helpers/clusters.js";
import { Hold } from "./helpers/hold.js";
import { finalDigest, submitSpec, waitForSuccess } from "./helpers/jobs.js";

describe("sync", () => {
  const scratch = new Scratch();
  afterEach(() => scratch.close());

  const withSync = (spec: string, sync: string): string => `${spec.replace(/max: 4/, "max: 2")}sync: { ${sync} }\n`;

  const trainWith = async (workers: number, spec: string, expected?: string): Promise<{ digest: string; loss: number }> => {
    const cluster = await scratch.cluster({ workers, engine: "cpu", threads: 1 });
    const jobId = await submitSpec(scratch, cluster, spec);
    const { loss, transport } = await waitForSuccess(cluster, jobId);
    if (expected !== undefined) assert.match(transport, new RegExp(`^${expected}\\b`));
    const digest = await finalDigest(cluster, jobId);
    await scratch.close();
    return { digest, loss };
  };
  const diloco = (minWorkers: number, steps: number, transport = "auto"): string =>
    withSync(
      tinySpec({ steps, everySteps: 40, minWorkers }),
      `mode: diloco, replicas: 2, innerSteps: 10, outerLearningRate: 1, transport: ${transport}`,
    );

  it("diloco: one worker, two workers and a worker killed on the way end in the same bits, and the loss falls", async () => {
    const start = await trainWith(1, diloco(1, 10));
    const alone = await trainWith(1, diloco(1, 205));
    assert.match(alone.digest, /^205 [0-9a-f]{64}$/);
    assert.ok(alone.loss < start.loss - 0.5, `${start.loss} -> ${alone.loss}`);
    assert.deepEqual(await trainWith(2, diloco(2, 205), "ipc"), alone);
    assert.deepEqual(await trainWith(2, diloco(2, 205, "grpc"), "grpc"), alone);

    const hold = new Hold(scratch, 40);
    const faults = { coordinator: [hold.fault] };
    const cluster = await scratch.cluster({ workers: 3, engine: "cpu", threads: 1, faults });
    const jobId = await submitSpec(scratch, cluster, diloco(2, 205));
    await hold.reached(cluster, jobId);
    await cluster.kill("worker-1", "SIGKILL");
    hold.release();
    await waitForSuccess(cluster, jobId);
    assert.equal(await finalDigest(cluster, jobId), alone.digest);
  });

  it("diloco: a job on two workers interrupted and resumed from its checkpoint ends as one worker does, states passed on and dropped", async () => {
    const undisturbed = await trainWith(1, withStates(diloco(1, 400), 350));
    const dir = scratch.folder();
    const hold = new Hold(scratch, 40);
    const first = await scratch.cluster({ dir, workers: 2, engine: "cpu", threads: 1, faults: { coordinator: [hold.fault] } });
    const jobId = await submitSpec(scratch, first, withStates(diloco(2, 400), 350));
    await hold.reached(first, jobId);
    const ended = first.names.map((name) => first.kill(name, "SIGTERM"));
    hold.release();
    await Promise.all(ended);
    await first.close();
    const second = await scratch.cluster({ dir, workers: 2, engine: "cpu", threads: 1 });
    await waitForSuccess(second, jobId);
    assert.equal(await finalDigest(second, jobId), undisturbed.digest);
  });

  it("bf16 on the wire: warned of, the same bits for the same workers, other bits than one worker", async () => {
    const spec = (minWorkers: number, transport = "auto"): string =>
      withSync(tinySpec({ minWorkers }), `wire: bf16, transport: ${transport}`);
    const pair = await trainWith(2, spec(2), "ipc");
    assert.deepEqual(await trainWith(2, spec(2, "grpc"), "grpc"), pair);
    assert.notEqual((await trainWith(1, spec(1))).digest, pair.digest);
    const cluster = await scratch.cluster({ workers: 1, engine: "cpu", threads: 1 });
    const file = join(scratch.folder(), "job.yaml");
    writeFileSync(file, spec(1));
    const { stdout, stderr } = await runSegue(cluster, "submit", file);
    assert.match(stdout + stderr, /depend on how many workers/);
  });
});
