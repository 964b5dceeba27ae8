import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { JobPhase } from "@segue/protocol";
import {
  connectRedis,
  createLogger,
  evaluationId,
  queueNames,
  redisKeys,
  startPrivateRedis,
  type PrivateRedis,
} from "@segue/runtime";
import { Queue } from "bullmq";
import { until } from "../../../test/helpers/patience.js";
import { SPEC, TestCluster } from "./helpers/cluster.js";
import { Relay } from "./helpers/relay.js";
import { StepGate } from "./helpers/step-gate.js";

/** Checkpoints at 6, 12, 18, 24, two of them kept; an evaluation of each. */
const EVALUATED = `${SPEC}evaluations:
  - name: short
    passkey: { lengths: [512], depths: [0.5], samples: 1, digits: 2 }
`;
const LOGGER = createLogger("test", process.env["TEST_LOG"] ?? "silent");

describe("a Redis that keeps its connections and does not answer", () => {
  let folder: string;
  let server: PrivateRedis;
  let relay: Relay;
  /** Past the relay. */
  let redis: ReturnType<typeof connectRedis>;
  let connection: ReturnType<typeof connectRedis>;
  let cluster: TestCluster;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "segue-outage-"));
    server = await startPrivateRedis({ dir: folder });
    const url = new URL(server.url);
    relay = await Relay.to({ host: url.hostname, port: Number(url.port) });
    redis = connectRedis(server.url, { logger: LOGGER, role: "reader" });
    url.port = String(relay.port);
    connection = connectRedis(url.href, { logger: LOGGER, role: "producer", timeoutMs: 300 });
    await once(connection, "ready");
    cluster = await TestCluster.start({ redis: connection });
  });
  afterEach(async () => {
    await cluster.close();
    connection.disconnect();
    redis.disconnect();
    await relay.close();
    await server.close();
    await rm(folder, { recursive: true });
  });

  const stepsOnDisk = async (jobId: string): Promise<number[]> => {
    const names = await readdir(join(cluster.store, "jobs", jobId, "checkpoints"));
    return names
      .filter((name) => name.startsWith("step-"))
      .map((name) => Number(name.slice(5)))
      .sort((a, b) => a - b);
  };
  const queued = (jobId: string): Promise<string[]> => redis.zrange(redisKeys.evaluations(jobId), 0, "-1");
  const idsOf = (jobId: string, steps: number[]): string[] => steps.map((step) => evaluationId(jobId, step, "short"));

  it("stops neither rounds nor checkpoints nor a pause; the job says what is missing, and gets it when Redis is back", async () => {
    const gate = new StepGate(20);
    await cluster.worker({ onStep: gate.pass });
    relay.hang();
    const jobId = await cluster.submit(EVALUATED);
    const told = await cluster.until(jobId, ({ evaluationsNotQueued }) => evaluationsNotQueued !== "");
    assert.match(told.evaluationsNotQueued, /evaluations of steps? 6.* are not queued: Redis does not answer/);
    gate.open();
    const digest = await cluster.digest(jobId);
    assert.equal(digest, await TestCluster.undisturbedDigest(EVALUATED));

    const long = await cluster.submit(EVALUATED.replace("steps: 24", "steps: 100000"));
    await cluster.until(long, ({ checkpointStep }) => checkpointStep >= 18);
    await cluster.jobs.pauseJob({ jobId: long });
    const { step } = await cluster.until(long, ({ phase }) => phase === JobPhase.PAUSED);

    assert.deepEqual(await stepsOnDisk(jobId), [6, 12, 18, 24], "all of them wait for their evaluations");
    relay.goOn();
    await cluster.until(long, ({ evaluationsNotQueued }) => evaluationsNotQueued === "");
    await until(async () => (await queued(jobId)).length === 4, "the evaluations of the first job");
    assert.deepEqual(await queued(jobId), idsOf(jobId, [6, 12, 18, 24]));
    assert.deepEqual((await stepsOnDisk(long)).slice(0, 3), [6, 12, 18]);
    assert.deepEqual((await queued(long)).slice(0, 3), idsOf(long, [6, 12, 18]));
    const hash = await until(async () => {
      const found = await redis.hgetall(redisKeys.job(long));
      return found["phase"] === "PAUSED" ? found : undefined;
    }, "Redis to hear of what it missed");
    assert.equal(hash["step"], String(step));
  });

  it("keeps what evaluations wait for while it is away, and deletes it when they are over", async () => {
    const gate = StepGate.after(8);
    const worker = await cluster.worker({ onStep: gate.pass });
    const jobId = await cluster.submit(EVALUATED.replace("steps: 24", "steps: 48"));
    await until(async () => (await queued(jobId)).length >= 1, "the first evaluation");
    await cluster.jobs.pauseJob({ jobId });
    gate.open();
    await cluster.until(jobId, ({ phase }) => phase === JobPhase.PAUSED);
    relay.hang();
    await cluster.jobs.resumeJob({ jobId });
    await cluster.digest(jobId);
    const all = [6, 12, 18, 24, 30, 36, 42, 48];
    const regular = async (): Promise<number[]> => (await stepsOnDisk(jobId)).filter((step) => step % 6 === 0);
    assert.deepEqual(await regular(), all);
    relay.goOn();
    await until(async () => (await queued(jobId)).length === all.length, "all evaluations");
    // They end as when somebody evaluates them.
    const heatmaps = new Queue(queueNames.heatmaps, { connection: redis });
    for (const id of await queued(jobId)) await (await heatmaps.getJob(id))?.remove();
    await heatmaps.close();
    await until(async () => (await regular()).length === 2, "the deletion of old checkpoints");
    assert.deepEqual(await regular(), [42, 48]);
    await worker.kill();
  });

  it("rebuilds from the store what is due, after a coordinator that ended meanwhile", async () => {
    await cluster.worker();
    relay.hang();
    const jobId = await cluster.submit(EVALUATED.replace("everySteps: 6", "everySteps: 12"));
    await cluster.digest(jobId);
    await cluster.stopCoordinator();
    await cluster.startCoordinator();
    assert.deepEqual(await stepsOnDisk(jobId), [12, 24]);
    // The job is over, so that watching it would end.
    await until(async () => (await cluster.jobs.getJob({ jobId })).job!.evaluationsNotQueued !== "", "the coordinator to notice");
    relay.goOn();
    await until(async () => (await queued(jobId)).length === 2, "the evaluations");
    assert.deepEqual(await queued(jobId), idsOf(jobId, [12, 24]));

    await redis.flushall();
    await cluster.stopCoordinator();
    await cluster.startCoordinator();
    await until(async () => (await queued(jobId)).length === 2, "what Redis forgot");
  });
});

describe("a coordinator without Redis", () => {
  it("says which evaluations nobody will queue", async () => {
    const cluster = await TestCluster.start();
    try {
      await cluster.worker();
      const jobId = await cluster.submit(EVALUATED);
      await cluster.digest(jobId);
      const { job } = await cluster.jobs.getJob({ jobId });
      assert.match(job?.evaluationsNotQueued ?? "", /not queued \(short\): the coordinator has no REDIS_URL/);
    } finally {
      await cluster.close();
    }
  });
});
