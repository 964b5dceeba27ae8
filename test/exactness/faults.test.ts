import assert from "node:assert/strict";
import { COORDINATOR_POINTS, WORKER_POINTS, type Fault, type FaultPoint } from "@segue/runtime";
import { Scratch, segueJson } from "../helpers/clusters.js";
import {
  exactnessSpec,
  faultsSuffered,
  stepsRestored,
  supervisedCluster,
  trainDisturbed,
  undisturbedDigest,
} from "../helpers/disturbed.js";
import { Hold } from "../helpers/hold.js";
import { waitForJob } from "../helpers/jobs.js";

/** `npm run test:exactness` kills at every point, `npm test` at a few. */
const isFull = process.env["EXACTNESS"] === "full";
const FEW: readonly FaultPoint[] = ["worker.computing", "worker.sumPublished", "coordinator.statesPulled"];
const chosen = <T extends FaultPoint>(points: readonly T[]): T[] => points.filter((point) => isFull || FEW.includes(point));

/** Past the first checkpoint, so that a restart does not simply begin again. */
const FROM_STEP = 70;
const MAX_ROUND_STEPS = 8;

describe(`exactness: killed at ${isFull ? "every" : "a few of the"} named points`, () => {
  const scratch = new Scratch();
  afterEach(() => scratch.close());

  // Three workers, so that sums are exchanged in slices.
  const workers = 3;
  const spec = exactnessSpec({ minWorkers: workers, maxWorkers: workers });
  let undisturbed = "";
  before(async () => {
    undisturbed = await undisturbedDigest(scratch);
  });

  const ofEveryTransport = WORKER_POINTS.filter((point) => point !== "worker.sliceCopied");
  for (const point of chosen(ofEveryTransport)) {
    it(`a worker killed at ${point} changes nothing`, async () => {
      // Joins happen before the first step and when somebody else is lost; a tensor belongs to no step.
      const early = ["worker.joining", "worker.joined", "worker.tensorAsked"].includes(point);
      const fault: Fault = { point, action: "kill", ...(early ? {} : { fromStep: FROM_STEP }) };
      const cluster = await supervisedCluster(scratch, { workers, faults: { "worker-2": [fault] } });
      assert.equal(await trainDisturbed(scratch, cluster, spec), undisturbed);
      assert.equal(faultsSuffered(cluster, "worker-2"), 1);
    });
  }

  it("a worker killed while the others wait for it in the memory that they share changes nothing", async () => {
    const fault: Fault = { point: "worker.computing", action: "kill", fromStep: FROM_STEP };
    const cluster = await supervisedCluster(scratch, { workers, faults: { "worker-2": [fault] } });
    const sharing = exactnessSpec({ minWorkers: workers, maxWorkers: workers, transport: "ipc" });
    assert.equal(await trainDisturbed(scratch, cluster, sharing), undisturbed);
    assert.equal(faultsSuffered(cluster, "worker-2"), 1);
  });

  const sharded = (minWorkers: number) =>
    exactnessSpec({ minWorkers, maxWorkers: workers, transport: "ipc", optimizer: "sharded" });

  it("members that step a slice each end in the bits of one that steps everything: two, paused and resumed", async () => {
    const hold = new Hold(scratch, FROM_STEP);
    const cluster = await supervisedCluster(scratch, { workers: 2, faults: { coordinator: [hold.fault] } });
    const digest = await trainDisturbed(scratch, cluster, sharded(2), async (jobId) => {
      await hold.reached(cluster, jobId);
      await segueJson(cluster, "pause", jobId);
      hold.release();
      await waitForJob(cluster, jobId, ({ phase }) => phase === "PAUSED");
      await segueJson(cluster, "resume", jobId);
    });
    assert.equal(digest, undisturbed);
  });

  const inSharded: FaultPoint[] = [
    "worker.joined",
    "worker.computing",
    "worker.snapshotPublished",
    "worker.sliceCopied",
    "worker.roundReported",
  ];
  for (const point of inSharded.filter((name) => isFull || name === "worker.sliceCopied")) {
    it(`one of three that step a slice each, killed at ${point}, changes nothing, nor does going on with fewer`, async () => {
      const fault: Fault = { point, action: "kill", ...(point === "worker.joined" ? {} : { fromStep: FROM_STEP }) };
      const cluster = await supervisedCluster(scratch, { workers, faults: { "worker-2": [fault] } });
      assert.equal(await trainDisturbed(scratch, cluster, sharded(1)), undisturbed);
      assert.equal(faultsSuffered(cluster, "worker-2"), 1);
      // The others had all of its moments between them.
      assert.deepEqual(stepsRestored(cluster), [0]);
    });
  }

  it("two neighbours of three that step a slice each, lost at once: the job falls back to its checkpoint, to the same bits", async () => {
    const hold = new Hold(scratch, FROM_STEP);
    const cluster = await supervisedCluster(scratch, { workers, faults: { coordinator: [hold.fault] } });
    const neighbours = ["worker-2", "worker-3"];
    const digest = await trainDisturbed(scratch, cluster, sharded(workers), async (jobId) => {
      await hold.reached(cluster, jobId);
      await Promise.all(neighbours.map((name) => cluster.kill(name, "SIGKILL")));
      hold.release();
      await Promise.all(neighbours.map((name) => cluster.restart(name)));
    });
    assert.equal(digest, undisturbed);
    assert.deepEqual(stepsRestored(cluster), [0, 60]);
  });

  for (const point of chosen(COORDINATOR_POINTS)) {
    it(`a coordinator killed at ${point} changes nothing`, async () => {
      const isForming = point === "coordinator.forming";
      const faults = {
        coordinator: [{ point, action: "kill", fromStep: isForming ? FROM_STEP - MAX_ROUND_STEPS : FROM_STEP }],
        // Somebody must be lost for a generation to be formed in mid-run, at the start of the round.
        ...(isForming && {
          "worker-2": [{ point: "worker.computing", action: "kill", fromStep: FROM_STEP }],
        }),
      } satisfies Record<string, Fault[]>;
      const cluster = await supervisedCluster(scratch, { workers, faults });
      assert.equal(await trainDisturbed(scratch, cluster, spec), undisturbed);
      assert.equal(faultsSuffered(cluster, "coordinator"), 1);
    });
  }
});
