import assert from "node:assert/strict";
import { openCudaDevice } from "../../src/cuda/cuda-device.js";
import { initialParameters } from "../../src/initial-parameters.js";
import { DeviceEngine } from "../../src/native/device-engine.js";
import { trainingArenaFloats } from "../../src/native/training-buffers.js";
import { adamWStep, CHAIN_MODEL, chainBatch } from "./chain-model.js";

const MIB = 2 ** 20;
const [LANES, TOKENS] = [64, 256];

const open = () => {
  const device = openCudaDevice("bf16");
  const engine = new DeviceEngine("cuda", device, CHAIN_MODEL);
  engine.writeParameters(initialParameters(CHAIN_MODEL, 1));
  const train = (lanes: number, step: number, tokens = TOKENS): void => {
    const states = engine.createStates(lanes);
    const part = { batch: chainBatch(`step ${step}`, lanes, tokens), states };
    engine.trainStep([part], adamWStep(step, 1e-3, lanes * tokens))();
    engine.freeStates(states);
  };
  const parameters = (): Float32Array => {
    const values = new Float32Array(engine.layout.size);
    engine.readParameters(values);
    return values;
  };
  return { device, engine, train, parameters };
};

describe("memory of a GPU", () => {
  it("holds what was planned, and takes none after the first step", () => {
    const { device, engine, train } = open();
    train(8, 1);
    const { peakBytes } = device.runtime.memory;
    assert.equal(engine.arenaBytes, 4 * trainingArenaFloats(CHAIN_MODEL, 8, TOKENS, 1, device));
    for (const step of [2, 3, 4]) train(8, step);
    assert.equal(device.runtime.memory.peakBytes, peakBytes);
    engine.close();
  });

  it("computes layers again where memory runs out, to the same bits, and says how many lanes would fit where that is not enough", () => {
    const roomy = open();
    const bytesOf = (lanes: number, recomputesLayers: boolean): number =>
      4 * trainingArenaFloats(CHAIN_MODEL, lanes, TOKENS, 1, { ...roomy.device, recomputesLayers });
    const [most, least] = [bytesOf(LANES, false), bytesOf(LANES, true)];
    roomy.train(1, 1);
    roomy.train(LANES, 2);

    const tight = open();
    // Kernels are loaded, and scratch memory of one lane is there.
    tight.train(1, 1);
    const rest = tight.device.freeBytes!() - least - Math.round(0.7 * (most - least));
    assert.ok(rest > 0, "this GPU has not enough free memory to begin with");
    tight.device.floats(rest / 4);
    tight.train(LANES, 2);
    assert.equal(tight.device.recomputesLayers, true);
    assert.deepEqual(tight.parameters(), roomy.parameters());

    const [, lanes] = /about (\d+) lanes a shard would fit/.exec(messageOf(() => tight.train(LANES, 3, 4 * TOKENS))) ?? [];
    assert.ok(Number(lanes) > LANES / 5 && Number(lanes) < LANES / 2, `${lanes} lanes`);
    // The engine goes on.
    for (const of of [roomy, tight]) of.train(LANES, 4);
    assert.deepEqual(tight.parameters(), roomy.parameters());
    for (const { engine } of [roomy, tight]) engine.close();
    console.log(`      ${(most / MIB).toFixed(0)} MiB of buffers, ${(least / MIB).toFixed(0)} MiB where layers are computed again`);
  });
});

function messageOf(work: () => void): string {
  try {
    work();
  } catch (e) {
    if ((e as { code?: unknown }).code === "DEVICE_OUT_OF_MEMORY") return String(e);
    throw e;
  }
  return assert.fail("there was memory enough");
}
