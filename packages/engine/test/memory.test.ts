import assert from "node:assert/strict";
import { parameterLayout, SLICE_BLOCK_FLOATS, validateJobSpec, type JobSpec } from "@segue/core";
import { jobMemory, largestLanesPerShard, shardedMemory, type MemoryOptions } from "../src/memory/job-memory.js";
import { openCpuDevice } from "../src/devices/cpu/cpu-device.js";
import { DeviceEngine } from "../src/native/device-engine.js";

const CPU: MemoryOptions = { workers: 1, engine: "cpu", threads: 1 };

function specOf(changes: { model?: object; tbptt?: object; batch?: object; sync?: object } = {}): JobSpec {
  return validateJobSpec({
    model: { layers: 2, dModel: 64, dState: 32, headDim: 32, chunk: 32, ...changes.model },
    data: { passkey: {} },
    tbptt: { segmentTokens: 128, ...changes.tbptt },
    batch: { shards: 4, lanesPerShard: 4, ...changes.batch },
    train: { steps: 100_000 },
    ...(changes.sync && { sync: changes.sync }),
  }).spec;
}

function partBytes(spec: JobSpec, name: string, options: Partial<MemoryOptions> = {}): number {
  const { parts } = jobMemory(spec, { ...CPU, ...options }).worker;
  return parts.find((part) => part.name === name)?.bytes ?? 0;
}

describe("jobMemory", () => {
  it("knows to the byte what the native engine allocates for activations, and nearly what its kernels do", async () => {
    for (const gradient of ["truncated", "full"] as const) {
      const spec = specOf({ model: { dModel: 256, dState: 64 }, tbptt: { segmentsPerStep: 3, gradient, segmentsPerChain: 0 } });
      const { model, tbptt } = spec;
      const device = await openCpuDevice(1);
      const engine = new DeviceEngine("cpu", device, model);
      try {
        const lanes = spec.batch.lanesPerShard;
        const tokens = 3 * tbptt.segmentTokens;
        const ids = Int32Array.from({ length: lanes * tokens }, (_, i) => i % model.vocab);
        const batch = { lanes, tokens, tokens_BT: ids, labels_BT: ids };
        engine.forwardBackward(batch, engine.createStates(lanes), new Float32Array(engine.layout.size), tbptt);
        assert.equal(partBytes(spec, "activations") + partBytes(spec, "start states"), engine.arenaBytes);
        const scratch = partBytes(spec, "kernel scratch") / device.scratchBytes();
        assert.ok(scratch > 0.8 && scratch < 1.5, `predicted ${scratch} of the kernels' scratch`);
      } finally {
        engine.close();
      }
    }
  });

  it("holds the states that segments start from only where gradients flow through them", () => {
    const tbptt = { segmentsPerStep: 4, segmentsPerChain: 0 };
    assert.equal(partBytes(specOf({ tbptt }), "start states"), 0);
    assert.ok(partBytes(specOf({ tbptt: { ...tbptt, gradient: "full" } }), "start states") > 0);
  });

  it("is that of the largest stage of a curriculum", () => {
    const grown = specOf({ tbptt: { segmentTokens: 256 } });
    const growing = specOf({
      tbptt: {
        curriculum: [
          { fromStep: 9, segmentTokens: 256 },
          { fromStep: 99, segmentTokens: 64 },
        ],
      },
    });
    for (const process of ["worker", "coordinator"] as const) {
      assert.equal(jobMemory(growing, CPU)[process].hostBytes, jobMemory(grown, CPU)[process].hostBytes);
    }
    const limits = { hostBytes: 2 ** 34 };
    assert.equal(largestLanesPerShard(growing, CPU, limits), largestLanesPerShard(grown, CPU, limits));
  });

  it("does not depend on the length of documents or training", () => {
    const spec = specOf();
    const longer = { ...spec, train: { ...spec.train, steps: 1_000_000_000 } };
    assert.equal(jobMemory(longer, CPU).worker.hostBytes, jobMemory(spec, CPU).worker.hostBytes);
    assert.equal(jobMemory(longer, CPU).coordinator.hostBytes, jobMemory(spec, CPU).coordinator.hostBytes);
  });

  it("counts what workers exchange, whole or in slices", () => {
    const small = specOf();
    const vectorBytes = 4 * parameterLayout(small.model).size;
    const overGrpc = specOf({ sync: { transport: "grpc" } });
    assert.equal(partBytes(small, "nodes of peers"), 0);
    assert.equal(partBytes(small, "sum"), 0);
    assert.equal(partBytes(small, "sum", { engine: "tfjs" }), vectorBytes);
    for (const [spec, engine] of [
      [small, "tfjs"],
      [overGrpc, "cpu"],
      [overGrpc, "cuda"],
    ] as const) {
      assert.equal(partBytes(spec, "sums", { workers: 2, engine }), 4 * vectorBytes);
      assert.equal(partBytes(spec, "nodes of peers", { workers: 4, engine }), 6 * vectorBytes);
    }
    assert.equal(partBytes(small, "sums", { workers: 2 }), 2 * vectorBytes);
    assert.equal(partBytes(small, "nodes of peers", { workers: 4 }), 3 * vectorBytes);
    const large = { dModel: 512 };
    const largeBytes = 4 * parameterLayout(specOf({ model: large }).model).size;
    assert.equal(partBytes(specOf({ model: large }), "nodes of peers", { workers: 4 }), (6 * largeBytes) / 4);
    const largeOverGrpc = specOf({ model: large, sync: { transport: "grpc" } });
    assert.equal(partBytes(largeOverGrpc, "nodes of peers", { workers: 4 }), (6 * largeBytes) / 4);
  });

  it("counts what GPUs exchange on the GPU, and what peers have there once", () => {
    const parts = (transport: string, wire = "f32") => {
      const spec = { ...specOf({ sync: { transport, wire } }) };
      const { parts } = jobMemory(
        { ...spec, train: { ...spec.train, engine: "cuda" } },
        { ...CPU, engine: "cuda", workers: 2 },
      ).worker;
      return parts
        .filter(({ name }) => ["sums", "nodes of peers", "rounded for sending"].includes(name))
        .map(({ name, place }) => `${name}: ${place}`);
    };
    assert.deepEqual(parts("auto"), ["sums: device"]);
    assert.deepEqual(parts("ipc"), ["sums: device"]);
    assert.deepEqual(parts("grpc"), ["sums: host", "nodes of peers: host"]);
    assert.deepEqual(parts("ipc", "bf16"), ["sums: device"]);
    assert.deepEqual(parts("nccl", "bf16"), ["sums: device", "rounded for sending: device", "nodes of peers: device"]);
    assert.deepEqual(parts("grpc", "bf16"), ["sums: host", "nodes of peers: host", "rounded for sending: host"]);
  });

  it("counts a slice of the moments, and in snapshots a copy of the next one's, where each member steps a slice", () => {
    const replicated = specOf({ model: { dModel: 512 } });
    const sharded = { ...replicated, sync: { ...replicated.sync, optimizer: "sharded" as const } };
    const { size } = parameterLayout(replicated.model);
    const both = (name: string, workers: number) => [replicated, sharded].map((spec) => partBytes(spec, name, { workers }));
    assert.equal(...(both("AdamW moments", 1) as [number, number]));
    assert.equal(...(both("snapshots", 1) as [number, number]));
    for (const workers of [2, 4]) {
      // Slices are whole blocks.
      const near = (bytes: number, floats: number) =>
        assert.ok(Math.abs(bytes / 4 - floats) <= 8 * SLICE_BLOCK_FLOATS, `${bytes / 4}, ${floats}`);
      const [all, own] = both("AdamW moments", workers);
      near(all! - own!, 2 * size * (1 - 1 / workers));
      const [whole, sliced] = both("snapshots", workers);
      near(whole! - sliced!, 2 * (2 * size - (4 * size) / workers));
    }
    assert.ok(
      shardedMemory(replicated, { ...CPU, workers: 4 })!.worker.hostBytes <
        jobMemory(replicated, { ...CPU, workers: 4 }).worker.hostBytes,
    );
    assert.equal(shardedMemory(replicated, CPU), undefined);
    assert.equal(shardedMemory(sharded, { ...CPU, workers: 4 }), undefined);
  });

  it("counts replicas and the outer step of diloco, where they are", () => {
    const spec = specOf({ sync: { mode: "diloco", replicas: 2, innerSteps: 10 } });
    const overGrpc = specOf({ sync: { mode: "diloco", replicas: 2, innerSteps: 10, transport: "grpc" } });
    const vectorBytes = 4 * parameterLayout(spec.model).size;
    assert.equal(partBytes(spec, "outer step"), 4 * vectorBytes);
    assert.equal(partBytes(spec, "replicas here"), 6 * vectorBytes);
    assert.equal(partBytes(spec, "sum"), 3 * vectorBytes);
    assert.equal(partBytes(spec, "adding shards"), vectorBytes);
    assert.equal(partBytes(overGrpc, "outer step", { workers: 2 }), 4 * vectorBytes);
    assert.equal(partBytes(overGrpc, "sums", { workers: 2 }), 12 * vectorBytes);
    const parts = (spec: JobSpec) =>
      jobMemory(spec, { ...CPU, engine: "cuda", workers: 2 })
        .worker.parts.filter(({ name }) => /^(sums|nodes of peers|replicas.*|outer step|adding .*)$/.test(name))
        .map(({ name, place, bytes }) => `${name}: ${bytes / vectorBytes} P, ${place}`)
        .sort();
    assert.deepEqual(parts(spec), [
      "adding shards: 1 P, device",
      "outer step: 1 P, host",
      "replicas: 2 P, device",
      "sums: 6 P, device",
    ]);
    assert.deepEqual(parts(overGrpc), [
      "adding shards: 1 P, device",
      "nodes of peers: 6 P, host",
      "outer step: 4 P, host",
      "sums: 12 P, host",
    ]);
    const five = specOf({ batch: { shards: 5 }, sync: { mode: "diloco", replicas: 5, innerSteps: 10 } });
    // Replicas 0 to 2 are two nodes, one of them of two replicas.
    assert.deepEqual(parts(five), [
      "adding replicas: 3 P, device",
      "outer step: 1 P, host",
      "replicas: 4 P, device",
      "sums: 9 P, device",
    ]);
  });

  it("puts a GPU's share on the GPU, in bf16 less of it", () => {
    const spec = specOf();
    const cuda = (precision: "f32" | "bf16"): number =>
      jobMemory({ ...spec, train: { ...spec.train, precision } }, { ...CPU, engine: "cuda" }).worker.deviceBytes;
    assert.ok(cuda("bf16") < cuda("f32"));
    assert.equal(jobMemory(spec, CPU).worker.deviceBytes, 0);
  });
});

describe("largestLanesPerShard", () => {
  it("finds the last that fits, within the bounds of a job spec", () => {
    const spec = specOf();
    const hostBytes = 2 ** 30;
    const largest = largestLanesPerShard(spec, CPU, { hostBytes });
    const needs = (lanesPerShard: number): number =>
      jobMemory({ ...spec, batch: { ...spec.batch, lanesPerShard } }, CPU).worker.hostBytes;
    assert.ok(largest > 0 && needs(largest) <= hostBytes && needs(largest + 1) > hostBytes);
    assert.equal(largestLanesPerShard(spec, CPU, { hostBytes: 1 }), 0);
    assert.equal(largestLanesPerShard(spec, CPU, {}), 2 ** 20 / 128);
  });
});
