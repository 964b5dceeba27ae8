import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, readdir, readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { CreateMultipartUploadCommand, ListMultipartUploadsCommand, S3Client } from "@aws-sdk/client-s3";
import { JobPhase, pullTensor, Tensors } from "@segue/protocol";
import { connectClient } from "@segue/runtime";
import { openObjectStore } from "../src/checkpoints/open-object-store.js";
import { S3Objects } from "../src/checkpoints/s3-objects.js";
import { until } from "../../../test/helpers/patience.js";
import { TestCluster } from "./helpers/cluster.js";
import { StepGate } from "./helpers/step-gate.js";

interface Place {
  readonly url: string;
  readonly s3Endpoint?: string;
}

/** The same promises, wherever the copies are. */
function keepsItsPromises(placeOf: () => Place): void {
  let place: Place;
  const clusters: TestCluster[] = [];
  const start = async (): Promise<TestCluster> => {
    const cluster = await TestCluster.start({ checkpoints: place.url, s3Endpoint: place.s3Endpoint });
    clusters.push(cluster);
    return cluster;
  };
  const close = async (cluster: TestCluster): Promise<void> => {
    clusters.splice(clusters.indexOf(cluster), 1);
    await cluster.close();
  };
  const keys = async (): Promise<string[]> => {
    const objects = await openObjectStore(place.url, { s3Endpoint: place.s3Endpoint });
    try {
      return (await objects.list()).map(({ key }) => key);
    } finally {
      objects.close();
    }
  };
  const manifests = async (): Promise<string[]> => (await keys()).filter((key) => key.endsWith("/manifest.json")).sort();
  /** Waits for the copies of these steps and of no others. A coordinator that stops does not wait long for them. */
  const untilCopied = (jobId: string, ...steps: number[]): Promise<true> => {
    const expected = steps.map((step) => `${jobId}/step-${String(step).padStart(8, "0")}/manifest.json`);
    return until(async () => isDeepStrictEqual(await manifests(), expected), `copies of ${steps.join(", ")}`, 50);
  };

  beforeEach(() => {
    place = placeOf();
  });
  afterEach(async () => {
    for (const cluster of clusters.splice(0)) await cluster.close();
  });

  it("has whole copies of the checkpoints that are kept, and of no others", async () => {
    const cluster = await start();
    await cluster.worker();
    const jobId = await cluster.submit();
    await cluster.digest(jobId);
    await untilCopied(jobId, 18, 24);
    await cluster.stopCoordinator();
    const local = await readdir(join(cluster.store, "jobs", jobId, "checkpoints", "step-00000024"));
    const copied = (await keys()).filter((key) => key.includes("step-00000024")).map((key) => key.split("/")[2]);
    assert.deepEqual(copied.sort(), local.sort());
  });

  it("lets a new machine find a job, resume it, and end in the same bits", async () => {
    const first = await start();
    const worker = await first.worker({ onStep: new StepGate(17).pass });
    const jobId = await first.submit();
    await untilCopied(jobId, 6, 12);
    await worker.kill();
    await close(first);

    const second = await start();
    const { job: found } = await second.jobs.getJob({ jobId });
    assert.equal(found?.phase, JobPhase.PAUSED);
    assert.match(found.reason, /found in .* at step 12; resume it/);
    assert.equal(found.checkpointStep, 12);
    assert.equal((await second.jobs.listCheckpoints({ jobId })).checkpoints.length, 2);
    await second.jobs.resumeJob({ jobId });
    await second.worker();
    const resumed = await second.digest(jobId);

    const undisturbed = await second.digest(await second.submit());
    assert.equal(resumed, undisturbed);
  });

  it("brings files back that only it has, for whoever asks", async () => {
    const first = await start();
    await first.worker();
    const jobId = await first.submit();
    await first.digest(jobId);
    await untilCopied(jobId, 18, 24);
    await close(first);

    const second = await start();
    const tensors = connectClient(Tensors, second.address);
    try {
      const { data } = await pullTensor(tensors, `job/${jobId}/checkpoint/18/manifest.json`);
      assert.equal((JSON.parse(Buffer.from(data).toString()) as { step: number }).step, 18);
      await assert.rejects(pullTensor(tensors, `job/${jobId}/checkpoint/12/manifest.json`), /no tensor/);
    } finally {
      tensors.close();
    }
  });

  it("takes the place of a damaged local checkpoint", async () => {
    const cluster = await start();
    const worker = await cluster.worker({ onStep: new StepGate(17).pass });
    const jobId = await cluster.submit();
    await untilCopied(jobId, 6, 12);
    await worker.kill();
    await cluster.stopCoordinator();
    const model = join(cluster.store, "jobs", jobId, "checkpoints", "step-00000012", "model.safetensors");
    const whole = await readFile(model);
    await truncate(model, 100);
    await cluster.startCoordinator();
    await cluster.worker({ onStep: new StepGate(12).pass });
    // The phase is what it was before the restart until there are members again.
    const job = await cluster.until(jobId, ({ workers }) => workers === 1);
    assert.equal(job.step, 12);
    assert.deepEqual(await readFile(model), whole);
  });

  it("gets what was written while it did not hear of it", async () => {
    const alone = await TestCluster.start();
    clusters.push(alone);
    await alone.worker();
    const jobId = await alone.submit();
    await alone.digest(jobId);
    await alone.stopCoordinator();
    alone.options = { checkpoints: place.url, s3Endpoint: place.s3Endpoint };
    await alone.startCoordinator();
    await untilCopied(jobId, 18, 24);
  });
}

describe("copies of checkpoints in a folder", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "segue-mirror-"));
  });
  keepsItsPromises(() => ({ url: join(folder, "copies") }));
  // After the coordinators are closed.
  afterEach(() => rm(folder, { recursive: true }));

  it("that cannot be written to: training goes on, the job says so, and the copies are made later", async () => {
    const url = join(folder, "copies");
    const cluster = await TestCluster.start({ checkpoints: url });
    try {
      await rename(url, `${url}.away`);
      await writeFile(url, "no folder");
      const gate = new StepGate(10);
      await cluster.worker({ onStep: gate.pass });
      const jobId = await cluster.submit();
      const trouble = await cluster.until(jobId, ({ notDurable }) => notDurable !== "");
      assert.match(trouble.notDurable, /step \d+ could not be copied to .*copies/);
      gate.open();
      await cluster.digest(jobId);
      await rm(url);
      await rename(`${url}.away`, url);
      const copied = async (): Promise<number> =>
        (await readdir(url, { recursive: true })).filter((name) => name.endsWith("manifest.json")).length;
      await until(async () => (await copied()) === 2, "two copies");
      await until(async () => (await cluster.jobs.getJob({ jobId })).job?.notDurable === "", "the job to say so");
    } finally {
      await cluster.close();
    }
  });
});

/**
 * Needs an S3-compatible server and a bucket: TEST_S3_ENDPOINT=http://... TEST_S3_BUCKET=name and credentials in AWS_ACCESS_KEY_ID and
 * AWS_SECRET_ACCESS_KEY.
 */
describe("copies of checkpoints in S3", () => {
  const endpoint = process.env["TEST_S3_ENDPOINT"];
  const bucket = process.env["TEST_S3_BUCKET"] ?? "";
  let prefix: string;

  before(function () {
    if (endpoint !== undefined && bucket !== "") return;
    console.log("      skipped: set TEST_S3_ENDPOINT and TEST_S3_BUCKET to run these against an S3-compatible server");
    this.skip();
  });
  beforeEach(() => {
    prefix = `test-${randomBytes(6).toString("hex")}`;
  });

  keepsItsPromises(() => ({ url: `s3://${bucket}/${prefix}`, ...(endpoint === undefined ? {} : { s3Endpoint: endpoint }) }));

  afterEach(async () => {
    const objects = new S3Objects(bucket, prefix, endpoint, 30_000);
    await objects.remove((await objects.list()).map(({ key }) => key));
    objects.close();
  });

  it("goes up in parts when it is big, comes back the same, and not at all when its digest is wrong", async () => {
    const folder = await mkdtemp(join(tmpdir(), "segue-s3-"));
    const objects = new S3Objects(bucket, prefix, endpoint, 30_000);
    const { signal } = new AbortController();
    try {
      const bytes = randomBytes(70 * 2 ** 20 + 123);
      const sha256 = createHash("sha256").update(bytes).digest("hex");
      await writeFile(join(folder, "big"), bytes);
      const record = { bytes: bytes.byteLength, sha256 };
      await assert.rejects(objects.upload("a/big", join(folder, "big"), { ...record, sha256: "0".repeat(64) }, signal), {
        code: "CHECKPOINT_DAMAGED",
      });
      assert.deepEqual(await objects.list(), []);
      await objects.upload("a/big", join(folder, "big"), record, signal);
      await objects.download("a/big", join(folder, "back"));
      assert.ok(bytes.equals(await readFile(join(folder, "back"))));
      assert.deepEqual(await objects.list(), [{ key: "a/big", bytes: bytes.byteLength }]);
      assert.equal(await objects.read("a/none"), undefined);
    } finally {
      objects.close();
      await rm(folder, { recursive: true });
    }
  });

  it("more than 1,000 unfinished uploads, which are one page of a listing, are aborted at a start", async () => {
    const client = new S3Client({ ...(endpoint !== undefined && { endpoint }), forcePathStyle: true, region: "us-east-1" });
    const at = { Bucket: bucket, Key: `${prefix}/job/step-00000001/model.safetensors` };
    const inPrefix = { Bucket: bucket, Prefix: `${prefix}/` };
    try {
      for (let made = 0; made < 1_040; made += 40) {
        await Promise.all(Array.from({ length: 40 }, () => client.send(new CreateMultipartUploadCommand(at))));
      }
      assert.equal((await client.send(new ListMultipartUploadsCommand(inPrefix))).IsTruncated, true);
      await (await TestCluster.start({ checkpoints: `s3://${bucket}/${prefix}`, s3Endpoint: endpoint })).close();
      assert.deepEqual((await client.send(new ListMultipartUploadsCommand(inPrefix))).Uploads ?? [], []);
    } finally {
      client.destroy();
    }
  });

  it("a bucket that is not there stops the start with an error that says so", async () => {
    const start = TestCluster.start({ checkpoints: "s3://segue-no-such-bucket/x", s3Endpoint: endpoint });
    await assert.rejects(start, { code: "CHECKPOINTS_REFUSED", message: /segue-no-such-bucket/ });
  });

  it("a service that does not answer is warned of, and training goes on", async () => {
    const cluster = await TestCluster.start({ checkpoints: `s3://${bucket}/${prefix}`, s3Endpoint: "http://127.0.0.1:9" });
    try {
      const gate = new StepGate(10);
      await cluster.worker({ onStep: gate.pass });
      const jobId = await cluster.submit();
      await cluster.until(jobId, ({ notDurable }) => /could not be copied/.test(notDurable));
      gate.open();
      await cluster.digest(jobId);
    } finally {
      await cluster.close();
    }
  });
});
