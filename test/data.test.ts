import assert from "node:assert/strict";
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runSegue, Scratch } from "./helpers/clusters.js";
import { finalDigest, submitSpec, waitForJob, waitForSuccess } from "./helpers/jobs.js";

describe("training on files that go away", () => {
  const scratch = new Scratch();
  after(() => scratch.close());

  it("ends in the same bits when the coordinator is killed, finds a document missing, and is killed again", async () => {
    const folder = scratch.folder();
    mkdirSync(join(folder, "data"));
    for (const index of [0, 1, 2])
      writeFileSync(join(folder, "data", `${index}.txt`), `river stone ${index} light wind `.repeat(90));
    const spec = `
name: files
model: { layers: 1, dModel: 16, dState: 8, headDim: 8, chunk: 16 }
data: { paths: ["${folder}/data"], minDocumentTokens: 100 }
tbptt: { segmentTokens: 64, segmentsPerChain: 0 }
batch: { shards: 2, lanesPerShard: 1 }
train: { steps: 60 }
rounds: { targetMs: 200, maxSteps: 4 }
checkpoints: { everySteps: 10 }
`;
    const quiet = await scratch.cluster({ workers: 1, threads: 1 });
    const quietJob = await submitSpec(scratch, quiet, spec);
    await waitForSuccess(quiet, quietJob);
    const undisturbed = await finalDigest(quiet, quietJob);
    await quiet.close();

    let crashed: () => void = () => undefined;
    const crash = new Promise<void>((resolve) => (crashed = resolve));
    const cluster = await scratch.cluster({
      workers: 1,
      threads: 1,
      faults: { coordinator: [{ point: "coordinator.roundBegins", fromStep: 25, action: "kill" }] },
      onCrash: ({ name }) => name === "coordinator" && crashed(),
    });
    const jobId = await submitSpec(scratch, cluster, spec);
    await crash;
    renameSync(join(folder, "data/1.txt"), join(folder, "1.txt"));
    await cluster.restart("coordinator");
    const paused = await waitForJob(cluster, jobId, ({ phase }) => phase === "PAUSED");
    assert.match(paused.reason, /^DATA_CHANGED: .*2 in 2 files with \d+ bytes now, 3 in 3 files/);
    const refused = await runSegue(cluster, "resume", jobId);
    assert.notEqual(refused.status, 0, refused.stdout);
    assert.match(refused.stderr, /DATA_CHANGED/);
    await cluster.kill("coordinator");
    renameSync(join(folder, "1.txt"), join(folder, "data/1.txt"));
    await cluster.restart("coordinator");
    await waitForSuccess(cluster, jobId);
    assert.equal(await finalDigest(cluster, jobId), undisturbed);
  });
});
