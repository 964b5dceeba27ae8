import assert from "node:assert/strict";
import { laneStateFloats, pagedFloats, randomStream, type ModelSpec } from "@segue/core";
import { createEngine, drawParameters, type Engine } from "@segue/engine";
import { ComputeHost } from "../src/compute/host.js";
import { Unfinished } from "../src/compute/unfinished.js";

const MODEL: ModelSpec = {
  ...{ layers: 1, dModel: 16, dState: 8, headDim: 8, expand: 2, dConv: 4, groups: 1, chunk: 16, vocab: 32, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};
const [SHARDS, LANES, TOKENS] = [3, 2, 24] as const;
const RULES = { segmentTokens: TOKENS, gradient: "truncated", carrySsm: true, carryConv: true } as const;
const OPTIMIZER = { learningRate: 1e-2, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };

/** Two whole steps of the only member; losses, norms and the weights afterwards. */
async function twoSteps(changes: PropertyDescriptorMap): Promise<Float32Array> {
  let engine: Engine | undefined;
  const createCpu = async (): Promise<Engine> => {
    engine = await createEngine("cpu", { model: MODEL, precision: "f32", threads: 1 });
    return Object.defineProperties(engine, changes);
  };
  const host = new ComputeHost(
    { availableEngines: async () => [], createEngine: createCpu, drawParameters },
    new Int32Array(new SharedArrayBuffer(4)),
  );
  const { parameters } = await host.open({
    engine: "cpu",
    options: { model: MODEL, precision: "f32", threads: 1 },
    lanesPerShard: LANES,
  });
  const model = [0, 1, 2].map(() => pagedFloats(parameters, 101));
  host.initialise({ seed: 5, model });
  const states = Array.from({ length: SHARDS }, (_, shard) => ({
    shard,
    states: new Float32Array(LANES * laneStateFloats(MODEL)),
  }));
  host.load({ model, states });
  const seen: number[] = [];
  for (const step of [1, 2]) {
    const random = randomStream(9, "whole step", step);
    const ids = (): Int32Array => Int32Array.from({ length: LANES * TOKENS }, () => random.below(MODEL.vocab));
    const batches = Array.from({ length: SHARDS }, (_, shard) => {
      // Lane 1 of every shard drops its state before the step.
      const resets = Uint8Array.from({ length: LANES * TOKENS }, (_, at) => (at === TOKENS ? 1 : 0));
      return { shard, tokens: ids(), labels: ids(), resets };
    });
    const initialState = { kind: "noise", std: 1, seed: 2, step } as const;
    const adamw = { optimizer: OPTIMIZER, learningRate: 1e-2, step, totalWeight: SHARDS * LANES * TOKENS };
    const answer = host.wholeStep({ epoch: 0, batches, rules: RULES, initialState, adamw });
    assert.equal(answer instanceof Unfinished, engine!.worksAhead);
    const { lossSums, gradientNorm } = answer instanceof Unfinished ? answer.wait() : answer;
    seen.push(...lossSums, gradientNorm);
  }
  const weights = new Float32Array(parameters);
  engine!.readParameters(weights);
  engine!.close();
  return Float32Array.from([...seen, ...weights]);
}

describe("a whole step", () => {
  it("is the same bits whether its gradients stay in the engine or come out in between, and whether it is waited for at once", async () => {
    const kept = await twoSteps({});
    assert.deepEqual(await twoSteps({ trainStep: { value: undefined } }), kept);
    assert.deepEqual(await twoSteps({ worksAhead: { value: true } }), kept);
  });
});
