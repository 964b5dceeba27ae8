import assert from "node:assert/strict";
import { JobPhase } from "@segue/protocol";
import { fromServiceError } from "@segue/runtime";
import { SPEC, TestCluster } from "./helpers/cluster.js";

describe("Jobs service", () => {
  let cluster: TestCluster;
  beforeEach(async () => {
    cluster = await TestCluster.start();
  });
  afterEach(() => cluster.close());

  async function refusal(call: Promise<unknown>) {
    try {
      await call;
    } catch (error) {
      const { code, status, violations } = fromServiceError(error);
      return { code, status, fields: (violations ?? []).map(({ field }) => field) };
    }
    throw new Error("the call was not refused");
  }

  it("refuses a bad spec with every problem and its path", async () => {
    const value = SPEC.replace("segmentTokens: 8", "segmentTokens: 0").replace("dState: 4", "dStat: 4");
    const { code, status, fields } = await refusal(cluster.jobs.submitJob({ source: { case: "yaml", value } }));
    assert.deepEqual({ code, status }, { code: "SPEC_INVALID", status: "INVALID_ARGUMENT" });
    assert.ok(fields.includes("tbptt.segmentTokens") && fields.includes("model.dStat"));
  });

  it("refuses missing data before anything starts", async () => {
    const value = SPEC.replace("passkey:", "textField: missing, passkey:");
    const { code, fields } = await refusal(cluster.jobs.submitJob({ source: { case: "yaml", value } }));
    assert.deepEqual({ code, fields }, { code: "SPEC_INVALID", fields: ["data.paths[0]"] });
    assert.deepEqual((await cluster.jobs.listJobs({})).jobs, []);
  });

  it("refuses an empty request and a batch that no message can carry", async () => {
    assert.equal((await refusal(cluster.jobs.submitJob({}))).code, "SPEC_MISSING");
    const value = SPEC.replace("lanesPerShard: 2", "lanesPerShard: 64").replace("segmentTokens: 8", "segmentTokens: 8192");
    const { code, fields } = await refusal(cluster.jobs.submitJob({ source: { case: "yaml", value } }));
    assert.deepEqual({ code, fields }, { code: "SPEC_INVALID", fields: ["batch"] });
  });

  it("only checks when asked to, and returns the effective spec", async () => {
    const { job } = await cluster.jobs.submitJob({ source: { case: "yaml", value: SPEC }, validateOnly: true });
    assert.equal(job?.jobId, "");
    assert.equal(job.spec?.optimizer?.beta2, 0.95);
    assert.deepEqual((await cluster.jobs.listJobs({})).jobs, []);
  });

  it("takes its own effective spec as protobuf", async () => {
    const first = await cluster.jobs.submitJob({ source: { case: "yaml", value: SPEC }, validateOnly: true });
    const second = await cluster.jobs.submitJob({ source: { case: "spec", value: first.job!.spec! }, validateOnly: true });
    assert.deepEqual(second.job?.spec, first.job?.spec);
  });

  it("makes one job of requests with one key, also at the same time", async () => {
    const submit = () => cluster.jobs.submitJob({ source: { case: "yaml", value: SPEC }, idempotencyKey: "k" });
    const ids = (await Promise.all([submit(), submit()])).map(({ job }) => job?.jobId);
    ids.push((await submit()).job?.jobId);
    assert.equal(new Set(ids).size, 1);
    assert.equal((await cluster.jobs.listJobs({})).jobs.length, 1);
  });

  it("refuses another spec with a key that belongs to a job, also at the same time, after an edit and after a restart", async () => {
    const submit = (value: string, idempotencyKey: string) =>
      cluster.jobs.submitJob({ source: { case: "yaml", value }, idempotencyKey });
    const other = SPEC.replace("steps: 24", "steps: 25");
    const reused = { code: "IDEMPOTENCY_KEY_REUSED", status: "ALREADY_EXISTS", fields: [] };
    const both = await Promise.allSettled([submit(SPEC, "k"), submit(other, "k")]);
    assert.deepEqual(
      both.map(({ status }) => status),
      ["fulfilled", "rejected"],
    );
    const [first] = (await cluster.jobs.listJobs({})).jobs;
    const jobId = first!.jobId;
    assert.deepEqual(await refusal(submit(other, "k")), reused);
    await assert.rejects(submit(other, "k"), (error) => {
      assert.match(fromServiceError(error).message, new RegExp(`belongs to the job ${jobId}, .*: .*train.steps differ`));
      return true;
    });
    const spec = await submit(SPEC, "k");
    assert.equal(
      (await cluster.jobs.submitJob({ source: { case: "spec", value: spec.job!.spec! }, idempotencyKey: "k" })).job?.jobId,
      jobId,
    );

    await cluster.jobs.pauseJob({ jobId });
    await cluster.until(jobId, ({ phase }) => phase === JobPhase.PAUSED);
    await cluster.jobs.editJob({ jobId, settings: { "train.steps": "25" } });
    for (const restarts of [0, 1]) {
      if (restarts > 0) {
        await cluster.stopCoordinator();
        await cluster.startCoordinator();
      }
      assert.equal((await submit(SPEC, "k")).job?.jobId, jobId);
      assert.deepEqual(await refusal(submit(other, "k")), reused);
    }
    assert.equal((await cluster.jobs.listJobs({})).jobs.length, 1);
  });

  it("lists jobs newest first, page by page", async () => {
    const ids = [await cluster.submit(), await cluster.submit(), await cluster.submit()];
    const first = await cluster.jobs.listJobs({ pageSize: 2 });
    const second = await cluster.jobs.listJobs({ pageSize: 2, pageToken: first.nextPageToken });
    assert.deepEqual(
      [...first.jobs, ...second.jobs].map(({ jobId }) => jobId),
      ids.reverse(),
    );
    assert.equal(second.nextPageToken, "");
    assert.equal((await refusal(cluster.jobs.listJobs({ pageToken: "x" }))).code, "PAGE_TOKEN_INVALID");
  });

  it("says what does not exist", async () => {
    const jobId = "nobody";
    const { jobs } = cluster;
    for (const call of [jobs.getJob({ jobId }), jobs.pauseJob({ jobId }), jobs.resumeJob({ jobId }), jobs.cancelJob({ jobId })]) {
      assert.deepEqual(await refusal(call), { code: "JOB_NOT_FOUND", status: "NOT_FOUND", fields: [] });
    }
    const waiting = await cluster.submit();
    assert.equal((await refusal(jobs.submitEvaluation({ jobId: waiting }))).code, "CHECKPOINT_NOT_FOUND");
  });

  it("tells a waiting job's reason, and pauses and cancels it without workers", async () => {
    const jobId = await cluster.submit(`${SPEC}workers: { min: 2, max: 2 }`);
    await cluster.worker();
    await cluster.until(jobId, ({ phase, reason }) => phase === JobPhase.WAITING && reason.includes("2"));
    await cluster.jobs.pauseJob({ jobId });
    await cluster.until(jobId, ({ phase }) => phase === JobPhase.PAUSED);
    assert.equal((await cluster.jobs.cancelJob({ jobId })).job?.phase, JobPhase.CANCELLED);
    assert.equal((await refusal(cluster.jobs.pauseJob({ jobId }))).code, "JOB_FINISHED");
  });

  it("refuses evaluations without Redis", async () => {
    await cluster.worker();
    const jobId = await cluster.submit();
    await cluster.digest(jobId);
    assert.equal((await refusal(cluster.jobs.submitEvaluation({ jobId }))).code, "EVALUATION_QUEUE_UNAVAILABLE");
    const evaluation = { passkey: { depths: [2] } };
    assert.equal((await refusal(cluster.jobs.submitEvaluation({ jobId, evaluation }))).code, "SPEC_INVALID");
  });

  it("refuses a second coordinator on the same store", async () => {
    await assert.rejects(cluster.startCoordinator(), { code: "STORE_LOCKED" });
  });
});
