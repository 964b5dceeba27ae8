import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { cellJobId } from "@segue/runtime";
import { until } from "../../../test/helpers/patience.js";
import { TestCluster } from "./cluster.js";

const CELL = { length: 400, depth: 0.5 };
const LOCK_MS = 2_000;

/** Evaluators as processes that die by SIGKILL in the middle of a cell, as by a node upgrade, a spot preemption or a lack of memory. */
describe("a cell whose evaluators die", () => {
  let cluster: TestCluster;
  const children: ChildProcess[] = [];

  before(async () => {
    cluster = await TestCluster.start();
  });
  afterEach(() => {
    for (const child of children.splice(0)) child.kill("SIGKILL");
  });
  after(() => cluster.close());

  const startEvaluator = (fault?: "evaluator.cellBegins" | "evaluator.cellComputed"): ChildProcess => {
    const main = fileURLToPath(new URL("../src/main.ts", import.meta.url));
    const child = spawn(process.execPath, ["--import=tsx", "--conditions=segue-source", main], {
      env: {
        ...process.env,
        REDIS_URL: cluster.privateRedis.url,
        SEGUE_COORDINATOR: cluster.server.address,
        SEGUE_ENGINE: "tfjs",
        SEGUE_THREADS: "1",
        SEGUE_EVALUATION_LOCK_MS: String(LOCK_MS),
        SEGUE_LOG_LEVEL: "silent",
        ...(fault ? { SEGUE_FAULTS: JSON.stringify([{ point: fault, action: "kill" }]) } : {}),
      },
      stdio: ["ignore", "inherit", "inherit"],
    });
    children.push(child);
    return child;
  };
  const dies = async (fault: "evaluator.cellBegins" | "evaluator.cellComputed"): Promise<void> => {
    const child = startEvaluator(fault);
    assert.deepEqual(await once(child, "exit"), [null, "SIGKILL"]);
  };

  it("is evaluated by the next one that lives, however many died", async () => {
    const digest = await cluster.publishCheckpoint("job-k", 10, 1);
    const id = await cluster.enqueue({ jobId: "job-k", step: 10, digest, cells: [CELL] });
    await dies("evaluator.cellBegins");
    await dies("evaluator.cellComputed");
    await dies("evaluator.cellComputed");
    startEvaluator();
    const done = await cluster.untilStatus(id, "done");
    assert.equal(done.cells["400:0.5"]!.samples, 3);
    const job = await cluster.cells.getJob(cellJobId(id, "len-400_depth-0.5"));
    // More where a machine is too busy for one that lives to keep its lock.
    assert.ok(job && job.stalledCounter >= 3);
    assert.equal(job.attemptsMade, 1);
  });

  it("is given up after ten, and the evaluation says which cell it was and why", async () => {
    const digest = await cluster.publishCheckpoint("job-l", 10, 2);
    const id = await cluster.enqueue({ jobId: "job-l", step: 10, digest, cells: [CELL] });
    const cellId = cellJobId(id, "len-400_depth-0.5");
    // Nine have died in it so far.
    await cluster.redis.hset(`bull:segue-cells:${cellId}`, "stc", 9);
    await dies("evaluator.cellBegins");
    startEvaluator();
    const { fields, cells } = await cluster.untilStatus(id, "failed");
    assert.equal(fields["reason"], 'the cell "length 400, depth 0.5" failed (10 evaluators died in it): it is not tried again');
    // The parent's own failure comes later and has nothing to add.
    const [heatmap] = await until(async () => {
      const failed = await cluster.heatmaps.getFailed();
      return failed.length > 0 && failed;
    }, "the heat map's own failure");
    assert.match(heatmap!.failedReason, /^child bull:segue-cells:.* failed$/);
    assert.equal((await cluster.evaluation(id)).fields["reason"], fields["reason"]);
    assert.equal(cells["400:0.5"], undefined);
  });

  it("that fails by itself says so, too", async () => {
    const id = await cluster.enqueue({ jobId: "job-m", step: 99, digest: "0".repeat(64), cells: [CELL] });
    startEvaluator();
    const { fields } = await cluster.untilStatus(id, "failed");
    assert.match(
      fields["reason"] ?? "",
      /^the cell "length 400, depth 0.5" failed \(1 failed try\): TENSOR_NOT_FOUND: no tensor .*job-m\/checkpoint\/99/,
    );
  });
});
