import assert from "node:assert/strict";
import { openCudaDevice } from "../../src/cuda/cuda-device.js";
import { DeviceEngine } from "../../src/native/device-engine.js";
import { initialParameters } from "../../src/initial-parameters.js";
import { adamWStep, CHAIN_MODEL, chainBatch } from "./chain-model.js";

const [LANES, TOKENS, STEPS] = [8, 256, 200] as const;

/** Mean loss of every step. */
function train(precision: "f32" | "bf16"): number[] {
  const engine = new DeviceEngine("cuda", openCudaDevice(precision), CHAIN_MODEL);
  engine.writeParameters(initialParameters(CHAIN_MODEL, 1));
  const states = engine.createStates(LANES);
  const losses = Array.from({ length: STEPS }, (_, i) => {
    const batch = chainBatch(`step ${i}`, LANES, TOKENS);
    const step = adamWStep(i + 1, 3e-3 * Math.min(1, (i + 1) / 20), LANES * TOKENS);
    return engine.trainStep([{ batch, states }], step)().lossSums[0]! / LANES / TOKENS;
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
});
