import assert from "node:assert/strict";
import type { ModelSpec } from "@segue/core";
import { openCudaDevice } from "../../src/cuda/cuda-device.js";
import { DeviceEngine, trainingArenaFloats } from "../../src/native/device-engine.js";
import { initialParameters } from "../../src/initial-parameters.js";
import { randomTokens } from "../native-support.js";

const MODEL: ModelSpec = {
  ...{ layers: 4, dModel: 128, dState: 64, headDim: 32, expand: 2, dConv: 4, groups: 1, chunk: 64, vocab: 64, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};
const [LANES, TOKENS, STEPS] = [8, 256, 200] as const;

/** Each token is one of two that follow from the one before: something to learn, and something that cannot be known. */
function chain(label: string): Int32Array {
  const coins = randomTokens(label, LANES * TOKENS + 1, 2);
  const tokens = new Int32Array(LANES * TOKENS + 1);
  for (let i = 1; i < tokens.length; i++) tokens[i] = (tokens[i - 1]! * 5 + 7 + coins[i]! * 11) % MODEL.vocab;
  return tokens;
}

/** Mean loss of every step. */
function train(precision: "f32" | "bf16"): number[] {
  const engine = new DeviceEngine("cuda", openCudaDevice(precision), MODEL);
  engine.writeParameters(initialParameters(MODEL, 1));
  const states = engine.createStates(LANES);
  const optimizer = { learningRate: 3e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };
  const losses = Array.from({ length: STEPS }, (_, i) => {
    const tokens = chain(`step ${i}`);
    const batch = { lanes: LANES, tokens: TOKENS, tokens_BT: tokens.slice(0, -1), labels_BT: tokens.slice(1) };
    const learningRate = 3e-3 * Math.min(1, (i + 1) / 20);
    const result = engine.trainStep([{ batch, states }], { optimizer, learningRate, step: i + 1, totalWeight: LANES * TOKENS });
    return result().lossSums[0]! / LANES / TOKENS;
  });
  engine.close();
  return losses;
}

describe("training on a GPU", () => {
  it(`learns, and loses no more in bf16 than in float32: within 1e-2 over ${STEPS} steps`, () => {
    const [whole, half] = [train("f32"), train("bf16")];
    const worst = Math.max(...whole.map((loss, i) => Math.abs(loss - half[i]!)));
    console.log(
      `      loss ${whole[0]!.toFixed(4)} -> ${whole.at(-1)!.toFixed(4)} in f32, ${half.at(-1)!.toFixed(4)} in bf16, worst ${worst.toFixed(5)}`,
    );
    assert.ok(whole.at(-1)! < 0.5 * whole[0]!);
    assert.ok(worst < 1e-2, `a step differs by ${worst}`);
  });

  it("holds the memory that was planned, and takes none after the first step", () => {
    const device = openCudaDevice("bf16");
    const engine = new DeviceEngine("cuda", device, MODEL);
    engine.writeParameters(initialParameters(MODEL, 1));
    const states = engine.createStates(LANES);
    const tokens = chain("memory");
    const batch = { lanes: LANES, tokens: TOKENS, tokens_BT: tokens.slice(0, -1), labels_BT: tokens.slice(1) };
    const optimizer = { learningRate: 3e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };
    const step = (number: number): void =>
      void engine.trainStep([{ batch, states }], { optimizer, learningRate: 1e-3, step: number, totalWeight: LANES * TOKENS })();
    step(1);
    const { peakBytes } = device.runtime.memory;
    assert.equal(engine.arenaBytes, 4 * trainingArenaFloats(MODEL, LANES, TOKENS, 1, device));
    for (const number of [2, 3, 4]) step(number);
    assert.equal(device.runtime.memory.peakBytes, peakBytes);
    engine.close();
  });
});
