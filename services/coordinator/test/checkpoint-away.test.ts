import assert from "node:assert/strict";
import { mkdir, mkdtemp, rename, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { JobPhase, type Job } from "@segue/protocol";
import { fromServiceError } from "@segue/runtime";
import { until } from "../../../test/helpers/patience.js";
import { Bucket } from "./helpers/bucket.js";
import { TestCluster, type TestClusterOptions } from "./helpers/cluster.js";
import { withCredentials } from "./helpers/credentials.js";
import { Relay } from "./helpers/relay.js";
import { StepGate } from "./helpers/step-gate.js";

/** Clusters that are closed behind each test, and what their jobs come to. */
function withClusters(): { start: (options?: TestClusterOptions) => Promise<TestCluster>; undisturbed: () => Promise<string> } {
  const clusters: TestCluster[] = [];
  let undisturbed: Promise<string> | undefined;
  afterEach(async () => {
    for (const cluster of clusters.splice(0)) await cluster.close();
  });
  return {
    start: async (options = {}) => {
      const cluster = await TestCluster.start(options);
      clusters.push(cluster);
      return cluster;
    },
    undisturbed: () => (undisturbed ??= TestCluster.undisturbedDigest()),
  };
}

/** A worker that notes the first step that it computes. */
async function worker(cluster: TestCluster): Promise<{ first: number | undefined }> {
  const seen: { first: number | undefined } = { first: undefined };
  await cluster.worker({ onStep: (step) => Promise.resolve(void (seen.first ??= step)) });
  return seen;
}

/** Trains a job up to its checkpoint of step 12 and stops the coordinator. */
async function trainedTo12(cluster: TestCluster, isThere: (jobId: string) => boolean | Promise<boolean>): Promise<string> {
  const worker = await cluster.worker({ onStep: new StepGate(17).pass });
  const jobId = await cluster.submit();
  await cluster.until(jobId, ({ checkpointStep }) => checkpointStep === 12);
  await until(() => isThere(jobId), "the checkpoints to be there");
  // Without a worker that holds the weights nothing newer can be written.
  await worker.kill();
  await cluster.stopCoordinator();
  return jobId;
}

const isPaused = ({ phase }: Job): boolean => phase === JobPhase.PAUSED;

describe("a job whose checkpoints only the bucket has", () => {
  withCredentials();
  let bucket: Bucket;
  let relay: Relay;
  let place: TestClusterOptions;

  beforeEach(async () => {
    bucket = await Bucket.start();
    relay = await Relay.to({ host: "127.0.0.1", port: bucket.port });
    place = { checkpoints: "s3://bucket/p", s3Endpoint: `http://127.0.0.1:${relay.port}`, checkpointsTimeoutMs: 600_000 };
  });
  // Before the clusters are closed, so that nothing waits.
  afterEach(async () => {
    await relay.close();
    await bucket.close();
  });
  const { start, undisturbed } = withClusters();

  /** The job on a new machine. */
  async function moved(): Promise<{ cluster: TestCluster; jobId: string }> {
    const isCopied = (jobId: string): boolean =>
      [6, 12].every((step) => bucket.objects.has(`p/${jobId}/step-${String(step).padStart(8, "0")}/manifest.json`));
    const jobId = await trainedTo12(await start(place), isCopied);
    const cluster = await start(place);
    assert.match((await cluster.jobs.getJob({ jobId })).job?.reason ?? "", /found in s3:\/\/bucket\/p at step 12/);
    return { cluster, jobId };
  }
  const waits = ({ phase, reason, workers }: Job): boolean =>
    phase === JobPhase.WAITING &&
    /^CHECKPOINTS_UNREACHABLE: s3:\/\/bucket.* waits for its checkpoint/.test(reason) &&
    workers === 0;

  const fail = (): void => void (bucket.fails = () => true);
  const work = (): void => void (bucket.fails = () => false);

  it("is not begun anew when it is resumed while the bucket is away: it waits, can be paused, and goes on where it was", async () => {
    const { cluster, jobId } = await moved();
    const seen = await worker(cluster);
    fail();
    await cluster.jobs.resumeJob({ jobId });
    await cluster.until(jobId, waits);
    // The workers are for others meanwhile.
    const other = await cluster.submit();
    assert.equal(await cluster.digest(other), await undisturbed());
    await cluster.jobs.pauseJob({ jobId });
    const { reason } = await cluster.until(jobId, isPaused);
    assert.equal(reason, "paused on request");
    await cluster.jobs.resumeJob({ jobId });
    await cluster.until(jobId, waits);
    seen.first = undefined;
    work();
    assert.equal(await cluster.digest(jobId), await undisturbed());
    assert.equal(seen.first, 12);
  });

  it("can be cancelled while the bucket owes an answer", async () => {
    const { cluster, jobId } = await moved();
    relay.hang();
    await cluster.jobs.resumeJob({ jobId });
    assert.equal((await cluster.jobs.cancelJob({ jobId })).job?.phase, JobPhase.CANCELLED);
  });

  const troubles: [string, () => void, () => void][] = [
    ["does not answer", () => relay.hang(), () => relay.goOn()],
    [
      "fails in the middle of a listing",
      () => void (bucket.fails = (_, { searchParams }) => searchParams.has("continuation-token")),
      work,
    ],
    [
      "does not give the newest manifest",
      () => void (bucket.fails = (method, { pathname }) => method === "GET" && pathname.endsWith("step-00000012/manifest.json")),
      work,
    ],
  ];
  for (const [what, begin, end] of troubles) {
    it(`waits over a restart of the coordinator while the bucket ${what}, and goes on by itself`, async () => {
      const { cluster, jobId } = await moved();
      await cluster.worker();
      fail();
      await cluster.jobs.resumeJob({ jobId });
      await cluster.until(jobId, waits);
      await cluster.stopCoordinator();
      work();
      // What is too late on a busy machine is asked for again.
      cluster.options = { ...place, checkpointsTimeoutMs: 1_000 };
      begin();
      await cluster.startCoordinator();
      const seen = await worker(cluster);
      await cluster.until(jobId, waits);
      end();
      assert.equal(await cluster.digest(jobId), await undisturbed());
      assert.equal(seen.first, 12);
    });
  }

  it("goes on from an older checkpoint on this machine while the newest cannot be fetched, and says so", async () => {
    const { cluster, jobId } = await moved();
    bucket.fails = (method, { pathname }) => method === "GET" && pathname.includes("step-00000012/model");
    const local = join(cluster.store, "jobs", jobId, "checkpoints", "step-00000006");
    await mkdir(local, { recursive: true });
    for (const [key, bytes] of bucket.objects) {
      const [, of, folder, name = ""] = key.split("/");
      if (of === jobId && folder === "step-00000006") await writeFile(join(local, name), bytes);
    }
    await cluster.jobs.resumeJob({ jobId });
    const { checkpointWarning, step } = await cluster.until(jobId, (job) => job.checkpointWarning !== "");
    assert.match(checkpointWarning, /step 12: s3:\/\/.*model\.safetensors could not be fetched/);
    assert.equal(step, 6);
    await cluster.worker();
    assert.equal(await cluster.digest(jobId), await undisturbed());
  });
});

describe("a job that has written checkpoints and finds none", () => {
  const { start, undisturbed } = withClusters();
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "segue-away-"));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const checkpoints = ({ store }: TestCluster, jobId: string): string => join(store, "jobs", jobId, "checkpoints");
  const resumeRefused = async ({ jobs }: TestCluster, jobId: string): Promise<string> => {
    const refusal: unknown = await jobs.resumeJob({ jobId }).then(
      () => undefined,
      (error: unknown) => error,
    );
    return refusal === undefined ? "" : fromServiceError(refusal).code;
  };

  const cases: [string, RegExp, (path: string) => Promise<void>, (path: string) => Promise<void>][] = [
    [
      "since their folder is away",
      /^CHECKPOINTS_MISSING: A checkpoint of step 12 was written, but there is none in .*checkpoints\. .*resume the job\.$/,
      (path) => rename(path, `${path}-away`),
      (path) => rename(`${path}-away`, path),
    ],
    [
      "since their folder cannot be read",
      /^CHECKPOINTS_UNREADABLE: .*checkpoints cannot be read: ENOTDIR/,
      async (path) => {
        await rename(path, `${path}-away`);
        await writeFile(path, "no folder");
      },
      async (path) => {
        await rm(path);
        await rename(`${path}-away`, path);
      },
    ],
    [
      "that can be read",
      /^CHECKPOINTS_UNREADABLE: .*step-00000012 cannot be read: EISDIR/,
      async (path) => {
        for (const step of ["06", "12"]) {
          const cursor = join(path, `step-000000${step}`, "cursor.json");
          await rename(cursor, `${cursor}-away`);
          await mkdir(cursor);
        }
      },
      async (path) => {
        for (const step of ["06", "12"]) {
          const cursor = join(path, `step-000000${step}`, "cursor.json");
          await rm(cursor, { recursive: true });
          await rename(`${cursor}-away`, cursor);
        }
      },
    ],
  ];
  for (const [what, expected, take, giveBack] of cases) {
    it(`${what}, pauses and says so, and goes on when they are back`, async () => {
      const cluster = await start();
      const jobId = await trainedTo12(cluster, () => true);
      await take(checkpoints(cluster, jobId));
      await cluster.startCoordinator();
      const seen = await worker(cluster);
      assert.match((await cluster.until(jobId, isPaused)).reason, expected);
      assert.ok(["", /^\^(\w+):/.exec(expected.source)?.[1]].includes(await resumeRefused(cluster, jobId)));
      await cluster.until(jobId, isPaused);
      assert.equal(seen.first, undefined);
      await giveBack(checkpoints(cluster, jobId));
      await cluster.jobs.resumeJob({ jobId });
      assert.equal(await cluster.digest(jobId), await undisturbed());
      assert.equal(seen.first, 12);
    });
  }

  it("but older ones, goes on from the newest of these and says what is gone", async () => {
    const cluster = await start();
    const jobId = await trainedTo12(cluster, () => true);
    await rm(join(checkpoints(cluster, jobId), "step-00000012"), { recursive: true });
    await cluster.startCoordinator();
    const { checkpointWarning, step } = await cluster.until(jobId, (job) => job.checkpointWarning !== "");
    assert.equal(checkpointWarning, "checkpoints were passed over: step 12: it is not there any more");
    assert.equal(step, 6);
    await cluster.worker();
    assert.equal(await cluster.digest(jobId), await undisturbed());
  });

  it("here and on a volume that is not mounted, pauses, and goes on from the volume when it is", async () => {
    const volume = join(folder, "volume");
    const cluster = await start({ checkpoints: volume });
    const jobId = await trainedTo12(cluster, () => true);
    // What was not copied before the end is copied here.
    await cluster.startCoordinator();
    const copy = join(volume, jobId, "step-00000012", "manifest.json");
    await until(
      () =>
        stat(copy).then(
          () => true,
          () => false,
        ),
      "the copy",
    );
    await cluster.stopCoordinator();
    await rename(volume, `${volume}-away`);
    await rm(checkpoints(cluster, jobId), { recursive: true });
    await cluster.startCoordinator();
    const seen = await worker(cluster);
    const { reason } = await cluster.until(jobId, isPaused);
    assert.match(reason, /^CHECKPOINTS_MISSING: .* there is none in .*checkpoints and .*volume\./);
    await rm(volume, { recursive: true });
    await rename(`${volume}-away`, volume);
    await cluster.jobs.resumeJob({ jobId });
    assert.equal(await cluster.digest(jobId), await undisturbed());
    assert.equal(seen.first, 12);
  });

  it("begins at its start when it never wrote one", async () => {
    const cluster = await start();
    const gate = new StepGate(4);
    const first = await cluster.worker({ onStep: gate.pass });
    const jobId = await cluster.submit();
    await cluster.until(jobId, ({ workers }) => workers === 1);
    await first.kill();
    await cluster.stopCoordinator();
    await cluster.startCoordinator();
    await cluster.worker();
    assert.equal(await cluster.digest(jobId), await undisturbed());
  });
});
