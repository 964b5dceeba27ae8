import assert from "node:assert/strict";
import { modelVectors, mostWorkers, SegueError, shardsPerPlacement, validateJobSpec } from "@segue/core";

const spec = (sync: object, rest: object = {}) => ({
  model: { layers: 1, dModel: 16, headDim: 8, dState: 8 },
  data: { passkey: {} },
  tbptt: { segmentTokens: 256, segmentsPerChain: 0 },
  batch: { shards: 8, lanesPerShard: 2 },
  train: { steps: 100 },
  checkpoints: { everySteps: 0 },
  sync,
  ...rest,
});

describe("sync in a job spec", () => {
  const refusalOf = (input: unknown): string => {
    try {
      validateJobSpec(input);
    } catch (error) {
      if (error instanceof SegueError) return error.message;
    }
    assert.fail("was accepted");
  };

  it("adds gradients at every step by default, in float32, by what the members share", () => {
    const { sync } = validateJobSpec({ ...spec({}), sync: undefined }).spec;
    const outer = { replicas: 8, innerSteps: 500, outerLearningRate: 0.7, outerMomentum: 0.9 };
    assert.deepEqual(sync, { mode: "exact", ...outer, wire: "f32", transport: "auto", optimizer: "replicated" });
  });

  it("places the shards of a replica together and allows one worker for each", () => {
    const { spec: diloco, warnings } = validateJobSpec(spec({ mode: "diloco", replicas: 4 }));
    assert.deepEqual(warnings, []);
    assert.deepEqual([shardsPerPlacement(diloco), mostWorkers(diloco), modelVectors(diloco), diloco.workers.max], [2, 4, 4, 4]);
    const { spec: exact } = validateJobSpec(spec({}));
    assert.deepEqual([shardsPerPlacement(exact), mostWorkers(exact), modelVectors(exact), exact.workers.max], [1, 8, 3, 8]);
  });

  it("refuses replicas, checkpoints, rounds and workers that do not fit", () => {
    assert.match(
      refusalOf(spec({ mode: "diloco", replicas: 3 })),
      /sync.replicas: must divide batch.shards, 8, but is 3; the nearest/,
    );
    const everySteps = spec({ mode: "diloco", innerSteps: 7 }, { checkpoints: { everySteps: 20 } });
    assert.match(refusalOf(everySteps), /checkpoints.everySteps: must be a multiple of sync.innerSteps, 7, but is 20/);
    const large = spec({ mode: "diloco", innerSteps: 10_000 }, { batch: { shards: 8, lanesPerShard: 64 } });
    assert.match(refusalOf(large), /sync.innerSteps: times the tokens of a step/);
    assert.match(refusalOf(spec({ mode: "diloco", replicas: 4 }, { workers: { max: 5 } })), /must not exceed sync.replicas, 4/);
    for (const [rest, what] of [
      [{ mode: "diloco" }, "sync.mode diloco"],
      [{ wire: "bf16" }, "sync.wire bf16"],
      [{ transport: "grpc" }, "sync.transport grpc"],
    ] as const) {
      assert.match(
        refusalOf(spec({ ...rest, optimizer: "sharded" })),
        new RegExp(`sync.optimizer: must be replicated with ${what}`),
      );
    }
    const tfjs = { train: { steps: 100, engine: "tfjs" } };
    assert.match(refusalOf(spec({ optimizer: "sharded" }, tfjs)), /sync.optimizer: must be replicated with train.engine tfjs/);
    assert.match(refusalOf(spec({ mode: "sometimes" })), /sync.mode: must be one of exact, diloco/);
  });

  it("warns of bf16 between workers, and of outer settings without an outer step", () => {
    assert.match(validateJobSpec(spec({ wire: "bf16" })).warnings.join(), /depend on how many workers/);
    assert.match(validateJobSpec(spec({ transport: "nccl" })).warnings.join(), /set train.engine to cuda/);
    const unused = { innerSteps: 10, outerLearningRate: 1, outerMomentum: 0, replicas: 2 };
    assert.equal(validateJobSpec(spec(unused)).warnings.length, 4);
  });
});
