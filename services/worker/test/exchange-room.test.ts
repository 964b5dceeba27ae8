import assert from "node:assert/strict";
import { pagedFloats, SegueError, type ModelSpec } from "@segue/core";
import { createEngine, drawParameters, type Engine } from "@segue/engine";
import { ComputeHost } from "../src/compute/host.js";

const MODEL: ModelSpec = {
  ...{ layers: 1, dModel: 16, dState: 8, headDim: 8, expand: 2, dConv: 4, groups: 1, chunk: 16, vocab: 32, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};

describe("room for an exchange", () => {
  it("is missing with a code after which another transport may do, and outer steps are made on this thread", async () => {
    const noRoom = (): never => {
      throw new SegueError("DEVICE_OUT_OF_MEMORY", "the GPU has no room", { status: "RESOURCE_EXHAUSTED" });
    };
    const createCpu = async (): Promise<Engine> =>
      Object.defineProperties(await createEngine("cpu", { model: MODEL, precision: "f32", threads: 1 }), {
        openReplicas: { value: noRoom },
      });
    const host = new ComputeHost(
      { availableEngines: async () => [], createEngine: createCpu, drawParameters },
      new Int32Array(new SharedArrayBuffer(4)),
    );
    const { parameters } = await host.open({
      engine: "cpu",
      options: { model: MODEL, precision: "f32", threads: 1 },
      lanesPerShard: 1,
    });
    const model = [0, 1, 2, 3].map(() => pagedFloats(parameters, 101));
    host.initialise({ seed: 5, model });
    host.load({ model, states: [] });
    const size = 3 * parameters;
    const members = [0, 1].map((replica) => ({ nodes: [{ lo: replica, hi: replica + 1 }], begin: 0, end: size }));
    const plan = { transport: "ipc", members, self: 0, root: { lo: 0, hi: 2 }, vectors: 3 } as const;
    assert.throws(() => host.exchangeOpen({ epoch: 0, plan, patienceMs: 1_000 }), {
      code: "EXCHANGE_UNAVAILABLE",
      message: /no room/,
    });
    host.load({ model, states: [] });
    host.replicaBegin({ epoch: 0, isFirst: true });
    const sum = new Float32Array(size);
    host.replicaEnd({ epoch: 0, into: sum });
    assert.deepEqual(sum, new Float32Array(size));
    host.close();
  });
});
