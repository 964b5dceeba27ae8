import assert from "node:assert/strict";
import { parameterLayout, SegueError, validateJobSpec, type JobSpec } from "@segue/core";
import { refuseWithoutRoom, type Room } from "../src/workers/room.js";
import { SPEC, TestCluster } from "./helpers/cluster.js";

const GIB = 2 ** 30;

function specOf(preset: string, engine = "auto"): JobSpec {
  return validateJobSpec({
    model: { preset },
    data: { passkey: { documentTokens: 4096 } },
    tbptt: { segmentTokens: 512 },
    batch: { shards: 2, lanesPerShard: 1 },
    train: { steps: 10, engine },
  }).spec;
}

const cpu = (memoryGib: number): Room => ({
  name: `cpu-${memoryGib}`,
  engines: ["cpu"],
  memoryBytes: memoryGib * GIB,
  gpuBytes: 0,
});
const gpu = (memoryGib: number, gpuGib: number): Room => ({
  name: `gpu-${gpuGib}`,
  engines: ["cuda", "cpu"],
  gpu: "NVIDIA T",
  memoryBytes: memoryGib * GIB,
  gpuBytes: gpuGib * GIB,
});

function refusal(spec: JobSpec, workers: readonly Room[]): string {
  try {
    refuseWithoutRoom(spec, workers);
    return "";
  } catch (error) {
    assert.ok(error instanceof SegueError && error.code === "MEMORY_INSUFFICIENT");
    return error.message;
  }
}

describe("room for a job", () => {
  it("is asked for where workers are attached, of which one suffices", () => {
    const spec = specOf("mamba2-2.7b");
    // 2.7 billion parameters: 10 vectors of 10.1 GiB on a CPU.
    const needed = (40 * parameterLayout(spec.model).size) / GIB;
    assert.equal(refusal(spec, []), "");
    assert.equal(refusal(spec, [cpu(8), cpu(Math.ceil(needed))]), "");
    const said = refusal(spec, [cpu(8), cpu(Math.floor(needed))]);
    assert.match(
      said,
      new RegExp(`need ${needed.toPrecision(3)} GiB of memory where there are .* on cpu-${Math.floor(needed)}, the largest of 2`),
    );
  });

  it("is that of the GPU for what the GPU holds", () => {
    const spec = specOf("mamba2-2.7b");
    assert.equal(refusal(spec, [gpu(96, 80)]), "");
    assert.match(refusal(spec, [gpu(96, 24)]), /^No attached worker .* of GPU memory where there are 24.0 GiB/);
    assert.match(refusal(spec, [gpu(16, 80)]), /need [0-9.]+ GiB of memory where there are 16.0 GiB/);
  });

  it("is less where each member steps a slice, which a job is told that would fit with it", () => {
    const spec = { ...specOf("mamba2-2.7b"), workers: { ...specOf("mamba2-2.7b").workers, max: 8 } };
    const vectorGib = (4 * parameterLayout(spec.model).size) / GIB;
    // Weights, gradient and a quarter of a moment; twice the weights and half a moment.
    const needed = (2.25 + 2 * 1.5) * vectorGib;
    const sharded: JobSpec = { ...spec, sync: { ...spec.sync, optimizer: "sharded" } };
    assert.equal(refusal(sharded, [cpu(Math.ceil(needed))]), "");
    assert.match(refusal(sharded, [cpu(Math.floor(needed))]), /Take a smaller model/);
    assert.match(refusal(spec, [cpu(Math.ceil(needed))]), /Set sync.optimizer to sharded, with which 8 workers have room/);
    assert.match(refusal(spec, [cpu(Math.floor(needed))]), /Take a smaller model/);
  });

  it("is not judged by workers that cannot take the job", () => {
    assert.equal(refusal(specOf("mamba2-2.7b", "cuda"), [cpu(8)]), "");
  });

  it("lacks: the job is refused when it is submitted and when it is only checked, and one that fits is taken", async () => {
    const cluster = await TestCluster.start();
    try {
      await cluster.worker({ memoryBytes: 2 ** 20 });
      await cluster.untilAttached(1);
      const value = SPEC.replace("dModel: 16", "dModel: 512");
      for (const validateOnly of [false, true]) {
        const submitting = cluster.jobs.submitJob({ source: { case: "yaml", value }, validateOnly });
        await assert.rejects(submitting, /MEMORY_INSUFFICIENT|No attached worker has room/);
      }
      assert.deepEqual((await cluster.jobs.listJobs({})).jobs, []);
      await cluster.digest(await cluster.submit());
    } finally {
      await cluster.close();
    }
  });
});
