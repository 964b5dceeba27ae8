import assert from "node:assert/strict";
import { jobMemory } from "@segue/engine";
import { judgeMemory, memoryInsufficient } from "../src/job/memory-check.js";
import { Worker } from "../src/worker.js";
import { fakeCompute, JOB, join, logger, ScriptedCoordinator, tinySpec } from "./support/scripted-coordinator.js";

const CPU = { workers: 1, engine: "cpu", threads: 1 } as const;

describe("the memory of a worker", () => {
  it("suffices, may suffice or cannot", () => {
    const spec = tinySpec(2);
    const { hostBytes } = jobMemory(spec, CPU).worker;
    assert.equal(judgeMemory(spec, CPU, hostBytes).verdict, "fits");
    assert.equal(judgeMemory(spec, CPU, 0.95 * hostBytes).verdict, "tight");
    assert.equal(judgeMemory(spec, CPU, 0.85 * hostBytes).verdict, "impossible");
  });

  it("is told to be too small with a number of lanes that would do", () => {
    const spec = tinySpec(2, { segmentTokens: 1024 }, { batch: { shards: 2, lanesPerShard: 512 } });
    const machineBytes = 0.5 * jobMemory(spec, CPU).worker.hostBytes;
    const { message } = memoryInsufficient(spec, CPU, judgeMemory(spec, CPU, machineBytes));
    const lanes = Number(/at most (\d+) instead of 512/.exec(message)?.[1]);
    const smaller = { ...spec, batch: { ...spec.batch, lanesPerShard: lanes } };
    assert.ok(jobMemory(smaller, CPU).worker.hostBytes <= machineBytes);
  });

  it("is told to be enough with slices of the optimizer where it is", () => {
    const model = { layers: 2, dModel: 512, dState: 16, headDim: 16, expand: 2, dConv: 4, groups: 1, chunk: 8 };
    const spec = tinySpec(4, {}, { model });
    const options = { ...CPU, workers: 4 };
    const replicated = jobMemory(spec, options).worker.hostBytes;
    const sharded = jobMemory({ ...spec, sync: { ...spec.sync, optimizer: "sharded" } }, options).worker.hostBytes;
    const told = (machineBytes: number) => memoryInsufficient(spec, options, judgeMemory(spec, options, machineBytes)).message;
    assert.match(told((replicated + sharded) / 2), /set sync.optimizer to sharded, with which it needs [0-9.]+ GiB/);
    assert.doesNotMatch(told(sharded - 1), /sharded/);
    const overGrpc = { ...spec, sync: { ...spec.sync, transport: "grpc" as const } };
    assert.doesNotMatch(memoryInsufficient(overGrpc, options, judgeMemory(overGrpc, options, sharded + 1)).message, /sharded/);
  });

  it("makes a worker refuse a job before anything of it is allocated", async () => {
    const coordinator = await new ScriptedCoordinator().start();
    const base = { version: "0.0.0", listen: "127.0.0.1:0", security: {}, engine: "auto", threads: 1, logger } as const;
    const worker = await Worker.start({
      ...base,
      name: "small",
      coordinator: coordinator.address,
      computeModule: fakeCompute,
      memoryBytes: 2 ** 20,
    });
    try {
      const stream = await coordinator.attached("small");
      assert.equal(stream.hello.memoryBytes, 2n ** 20n);
      const joining = join({ spec: tinySpec(1), generation: 1, placed: [[stream, [0]]] });
      joining.catch(() => undefined);
      const failure = await stream.next("failure");
      assert.equal(failure.jobId, JOB);
      assert.equal(failure.code, "MEMORY_INSUFFICIENT");
      assert.match(failure.message, /has 0\.000977 GiB; take a smaller model/);
    } finally {
      await worker.close();
      await coordinator.close();
    }
  });
});
