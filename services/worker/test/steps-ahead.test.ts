import assert from "node:assert/strict";
import { laneStateFloats, type ModelSpec } from "@segue/core";
import { ComputeThread } from "../src/compute/compute-thread.js";
import { sharedFloats, sharedPages } from "../src/compute/shared.js";

const MODEL: ModelSpec = {
  ...{ layers: 1, dModel: 16, dState: 8, headDim: 8, expand: 2, dConv: 4, groups: 1, chunk: 16, vocab: 32, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};
const OPTIMIZER = { learningRate: 1e-2, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };
const RULES = { segmentTokens: 16, gradient: "truncated", carrySsm: true, carryConv: true } as const;

describe("steps on a device of its own", () => {
  it("are begun before the step before is waited for, answered in order, and ended before anything else", async () => {
    const compute = new ComputeThread(new URL("./support/device-thread.mjs", import.meta.url));
    try {
      const options = { model: MODEL, precision: "f32", threads: 1 } as const;
      const { parameters } = await compute.call("open", { engine: "cuda", options, lanesPerShard: 1 });
      const model = [0, 1, 2].map(() => sharedPages(parameters));
      await compute.call("load", { model, states: [{ shard: 0, states: sharedFloats(laneStateFloats(MODEL)) }] });
      const batches = [{ shard: 0, tokens: new Int32Array(16), labels: new Int32Array(16) }];
      const common = { epoch: 0, batches, rules: RULES };
      const answers: string[] = [];
      const step = (number: number): Promise<unknown> => {
        const adamw = { optimizer: OPTIMIZER, learningRate: 1e-2, step: number, totalWeight: 16 };
        return compute.call("wholeStep", { ...common, adamw }).then(
          ({ lossSums }) => answers.push(`step ${number} waited for when ${lossSums[0]} had begun`),
          (error: { code: string }) => answers.push(`step ${number}: ${error.code}`),
        );
      };
      const saved = (): Promise<unknown> =>
        compute
          .call("save", { epoch: 0, model, states: [] })
          .then(() => answers.push(`saved after ${model[0]?.pages[0]?.[0]} steps`));
      // While the probe takes its time, everything else comes.
      const probed = compute.call("probe", { threads: 1, gpu: 0 });
      await Promise.all([probed, step(1), step(2), step(3), saved(), step(4), step(5), step(6)]);
      assert.deepEqual(answers, [
        "step 1 waited for when 2 had begun",
        "step 2 waited for when 3 had begun",
        "step 3 waited for when 3 had begun",
        "saved after 3 steps",
        "step 4 waited for when 5 had begun",
        "step 5: ENGINE_OUT_OF_MEMORY",
        "step 6 waited for when 6 had begun",
      ]);
    } finally {
      await compute.close();
    }
  });
});
