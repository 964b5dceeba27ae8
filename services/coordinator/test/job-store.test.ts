import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseJobSpec } from "@segue/core";
import { createLogger } from "@segue/runtime";
import type { JobRecord } from "../src/jobs/job-record.js";
import { JobStore } from "../src/jobs/job-store.js";

describe("JobStore", () => {
  let folder: string;
  let store: JobStore;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "segue-jobs-"));
    store = new JobStore(folder, { verify: async () => undefined }, createLogger("test", "silent"));
  });
  afterEach(() => {
    store.close();
    rmSync(folder, { recursive: true });
  });

  const record = (jobId: string): JobRecord => ({
    jobId,
    spec: parseJobSpec(
      "name: kept\nmodel: { layers: 1, dModel: 16, dState: 8, headDim: 8 }\ndata: { passkey: { documentTokens: 300 } }\ntrain: { steps: 5 }\n",
    ).spec,
    phase: "WAITING",
    reason: "",
    errorCode: "",
    attempt: 0,
    submittedAtMs: 1,
    updatedAtMs: 1,
    idempotencyKey: "",
  });

  it("loads what it saved", async () => {
    await store.save(record("kept-1"));
    assert.deepEqual(await store.loadAll(), [record("kept-1")]);
  });

  it("gives keys that an older version did not know their defaults", async () => {
    const old = record("old");
    const tbptt = { ...old.spec.tbptt, segmentsPerStep: undefined };
    mkdirSync(store.folder("old"), { recursive: true });
    writeFileSync(join(store.folder("old"), "job.json"), JSON.stringify({ ...old, spec: { ...old.spec, tbptt } }));
    assert.deepEqual(await store.loadAll(), [old]);
  });

  it("passes over what is no job", async () => {
    await store.save(record("kept-1"));
    for (const [jobId, text] of [
      ["cut-off", '{"jobId": "cut-'],
      ["no-spec", '{"jobId": "no-spec"}'],
    ] as const) {
      mkdirSync(store.folder(jobId), { recursive: true });
      writeFileSync(join(store.folder(jobId), "job.json"), text);
    }
    assert.deepEqual(
      (await store.loadAll()).map(({ jobId }) => jobId),
      ["kept-1"],
    );
  });
});
