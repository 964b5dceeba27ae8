import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, open, readdir, readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { JobSpec } from "@segue/core";
import { JobPhase } from "@segue/protocol";
import { createLogger } from "@segue/runtime";
import { CheckpointStore } from "../src/checkpoints/checkpoint-store.js";
import { readManifest } from "../src/checkpoints/manifest.js";
import { SPEC, TestCluster } from "./helpers/cluster.js";
import { StepGate } from "./helpers/step-gate.js";

const logger = createLogger("coordinator", "silent");

async function flipBit(path: string, position: number): Promise<void> {
  const file = await open(path, "r+");
  try {
    const byte = new Uint8Array(1);
    await file.read(byte, 0, 1, position);
    await file.write(Uint8Array.of((byte[0] ?? 0) ^ 1), 0, 1, position);
  } finally {
    await file.close();
  }
}

const damages: Readonly<Record<string, { damage: (folder: string) => Promise<unknown>; message: RegExp }>> = {
  "a truncated file": {
    damage: (folder) => truncate(join(folder, "optimizer.safetensors"), 1_000),
    message: /optimizer.safetensors does not match/,
  },
  "an empty file": {
    damage: (folder) => truncate(join(folder, "lanes.safetensors"), 0),
    message: /lanes.safetensors does not match/,
  },
  "a flipped bit in the weights": {
    damage: (folder) => flipBit(join(folder, "model.safetensors"), 9_000),
    message: /does not match/,
  },
  "a flipped bit in the cursor": {
    damage: (folder) => flipBit(join(folder, "cursor.json"), 10),
    message: /cursor.json does not match/,
  },
  "a missing file": {
    damage: (folder) => rm(join(folder, "config.json")),
    message: /config.json is missing/,
  },
  "a missing manifest": {
    damage: (folder) => rm(join(folder, "manifest.json")),
    message: /manifest.json is missing/,
  },
  "half a manifest": {
    damage: (folder) => truncate(join(folder, "manifest.json"), 300),
    message: /is no manifest/,
  },
  "a manifest that names a file that is not there": {
    damage: async (folder) => {
      const manifest = await readManifest(folder);
      const files = { ...manifest.files, "tokenizer.json": { bytes: 10, sha256: "0".repeat(64) } };
      await writeFile(join(folder, "manifest.json"), JSON.stringify({ ...manifest, files }));
    },
    message: /tokenizer.json is missing/,
  },
  "a manifest that names a file outside the folder": {
    damage: async (folder) => {
      const manifest = await readManifest(folder);
      const files = { ...manifest.files, "../../job.json": { bytes: 10, sha256: "0".repeat(64) } };
      await writeFile(join(folder, "manifest.json"), JSON.stringify({ ...manifest, files }));
    },
    message: /is no manifest/,
  },
  "the files of another step": {
    damage: async (folder) => {
      await rm(folder, { recursive: true });
      await cp(join(dirname(folder), "step-00000012"), folder, { recursive: true });
    },
    message: /holds step 12/,
  },
};

describe("damaged checkpoints", () => {
  let origin: string;
  let spec: JobSpec;
  let jobFolder: string;

  before(async () => {
    origin = await mkdtemp(join(tmpdir(), "segue-damage-"));
    const cluster = await TestCluster.start();
    try {
      await cluster.worker();
      const jobId = await cluster.submit(SPEC.replace("steps: 24", "steps: 18"));
      await cluster.digest(jobId);
      // What is written last are the record and the events.
      await cluster.stopCoordinator();
      await cp(join(cluster.store, "jobs", jobId), join(origin, "job"), { recursive: true });
      spec = (JSON.parse(await readFile(join(origin, "job", "job.json"), "utf8")) as { spec: JobSpec }).spec;
    } finally {
      await cluster.close();
    }
  });
  after(() => rm(origin, { recursive: true }));
  beforeEach(async () => {
    jobFolder = await mkdtemp(join(origin, "copy-"));
    await cp(join(origin, "job"), jobFolder, { recursive: true });
  });

  const newest = () => join(jobFolder, "checkpoints", "step-00000018");

  it("are told from whole ones", async () => {
    const store = new CheckpointStore(jobFolder, logger);
    assert.equal((await store.loadNewest(spec))?.cursor.step, 18);
    assert.equal(store.damaged.size, 0);
  });

  it("are told from whole ones among those of the first kind, too", async () => {
    await toFirstKind(newest());
    const store = new CheckpointStore(jobFolder, logger);
    assert.equal((await store.loadNewest(spec))?.manifest.format, 1);
    const manifest = await readManifest(newest());
    for (const field of ["digest", "weightsDigest"] as const) {
      const wrong = { ...manifest, [field]: "0".repeat(64) };
      await writeFile(join(newest(), "manifest.json"), JSON.stringify(wrong));
      assert.equal((await store.loadNewest(spec))?.cursor.step, 12);
      assert.deepEqual([...store.damaged.keys()], [18]);
    }
  });

  for (const [kind, { damage, message }] of Object.entries(damages)) {
    it(`${kind}: the checkpoint before it is loaded, and the damage is told`, async () => {
      await damage(newest());
      const store = new CheckpointStore(jobFolder, logger);
      assert.equal((await store.loadNewest(spec))?.cursor.step, 12);
      assert.deepEqual([...store.damaged.keys()], [18]);
      assert.match(store.damaged.get(18) ?? "", message);
      const listed = (await store.list()).map(({ manifest }) => manifest.step);
      assert.deepEqual(listed, [12]);
      // It stays where it is until a newer one is verified, and the good one is not deleted for it.
      assert.deepEqual(await store.retain({ keepLast: 1, keepEvery: 0 }, () => false), []);
    });
  }

  it("all of them: training starts from the beginning", async () => {
    await truncate(join(newest(), "model.safetensors"), 5);
    await rm(join(jobFolder, "checkpoints", "step-00000012", "manifest.json"));
    const store = new CheckpointStore(jobFolder, logger);
    assert.equal(await store.loadNewest(spec), undefined);
    assert.deepEqual([...store.damaged.keys()].sort(), [12, 18]);
  });

  it("half written ones, which a crash leaves in a temporary folder, are removed at the start", async () => {
    const parent = join(jobFolder, "checkpoints");
    await rename(newest(), join(parent, ".step-00000018.5b0c"));
    await mkdir(join(parent, ".step-00000024.77aa"));
    const store = new CheckpointStore(jobFolder, logger);
    await store.tidy();
    assert.deepEqual(await readdir(parent), ["step-00000012"]);
    assert.equal((await store.loadNewest(spec))?.cursor.step, 12);
    assert.equal(store.damaged.size, 0);
  });

  it("of the first kind: a job goes on from one and ends in the same bits", async () => {
    const cluster = await TestCluster.start();
    try {
      const undisturbed = await mostRecentDigest(cluster, await train(cluster));
      const gate = StepGate.after(14);
      const worker = await cluster.worker({ onStep: gate.pass });
      const jobId = await cluster.submit();
      await cluster.until(jobId, ({ step }) => step >= 14);
      const stopped = cluster.stopCoordinator();
      gate.open();
      await stopped;
      await worker.kill();
      const parent = join(cluster.store, "jobs", jobId, "checkpoints");
      for (const name of await readdir(parent)) await toFirstKind(join(parent, name));
      await cluster.startCoordinator();
      await cluster.worker();
      assert.equal(await cluster.digest(jobId), undisturbed);
    } finally {
      await cluster.close();
    }
  });

  it("through a restart of the coordinator: the job says what was passed over, and ends in the same bits", async () => {
    const cluster = await TestCluster.start();
    try {
      const undisturbed = await mostRecentDigest(cluster, await train(cluster));
      const worker = await cluster.worker({ onStep: new StepGate(17).pass });
      const jobId = await cluster.submit();
      await cluster.until(jobId, ({ checkpointStep }) => checkpointStep >= 12);
      // Without a worker that holds the weights nothing newer can be written.
      await worker.kill();
      await cluster.stopCoordinator();
      const parent = join(cluster.store, "jobs", jobId, "checkpoints");
      const newestName = "step-00000012";
      await flipBit(join(parent, newestName, "optimizer.safetensors"), 20_000);
      await mkdir(join(parent, ".step-00000099.dead"));
      await cluster.startCoordinator();
      const waiting = await cluster.until(jobId, ({ checkpointWarning }) => checkpointWarning !== "");
      assert.match(waiting.checkpointWarning, new RegExp(`step ${Number(newestName.slice(5))}: .*optimizer.safetensors`));
      assert.equal(waiting.step, 6);
      assert.ok(!(await readdir(parent)).includes(".step-00000099.dead"));
      await cluster.worker();
      assert.equal(await cluster.digest(jobId), undisturbed);
      assert.equal((await cluster.jobs.getJob({ jobId })).job?.checkpointWarning, "");
    } finally {
      await cluster.close();
    }
  });
});

/** Makes of a checkpoint what earlier versions wrote: digests are over the bytes. */
async function toFirstKind(folder: string): Promise<void> {
  const manifest = await readManifest(folder);
  const hash = createHash("sha256");
  let weightsDigest = "";
  for (const name of ["model", "optimizer", "lanes"]) {
    const file = await readFile(join(folder, `${name}.safetensors`));
    hash.update(file.subarray(8 + Number(file.readBigUInt64LE(0))));
    if (name === "model") weightsDigest = hash.copy().digest("hex");
  }
  const digest = hash.update(await readFile(join(folder, "cursor.json"))).digest("hex");
  await writeFile(join(folder, "manifest.json"), JSON.stringify({ ...manifest, format: 1, weightsDigest, digest }));
}

async function train(cluster: TestCluster): Promise<string> {
  const worker = await cluster.worker();
  const jobId = await cluster.submit();
  await cluster.until(jobId, ({ phase }) => phase === JobPhase.SUCCEEDED);
  await worker.kill();
  return jobId;
}

async function mostRecentDigest(cluster: TestCluster, jobId: string): Promise<string> {
  return (await cluster.jobs.listCheckpoints({ jobId })).checkpoints[0]!.digest;
}
