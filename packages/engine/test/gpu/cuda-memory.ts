import assert from "node:assert/strict";
import { openCudaDevice } from "../../src/cuda/cuda-device.js";
import { initialParameters } from "../../src/initial-parameters.js";
import { DeviceEngine } from "../../src/native/device-engine.js";
import { trainingArenaFloats } from "../../src/native/training-buffers.js";
import { adamWStep, CHAIN_MODEL, chainBatch } from "./chain-model.js";

const MIB = 2 ** 20;
const [LANES, TOKENS] = [64, 256];

const open = (mostBytes?: number) => {
  const recompute = mostBytes === undefined ? "auto" : String(mostBytes / MIB);
  const device = openCudaDevice("bf16", 0, { ...process.env, SEGUE_CUDA_RECOMPUTE: recompute });
  const engine = new DeviceEngine("cuda", device, CHAIN_MODEL);
  engine.writeParameters(initialParameters(CHAIN_MODEL, 1));
  const train = (lanes: number, step: number, tokens = TOKENS): void => {
    const states = engine.createStates(lanes);
    const part = { batch: chainBatch(`step ${step}`, lanes, tokens), states };
    try {
      engine.trainStep([part], adamWStep(step, 1e-3, lanes * tokens))();
    } finally {
      engine.freeStates(states);
    }
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

  it("computes as little again as memory allows, to the same bits, and says how many lanes would fit where that is not enough", () => {
    const roomy = open();
    for (const step of [1, 2, 3]) roomy.train(LANES, step);
    const expected = roomy.parameters();
    const { peakBytes } = roomy.device.runtime.memory;
    const bytesOf = (economies: number): number =>
      4 * trainingArenaFloats(CHAIN_MODEL, LANES, TOKENS, 1, { ...roomy.device, economies });
    const most = 2 * CHAIN_MODEL.layers;
    const spared = bytesOf(0) - bytesOf(most);
    const seen = [0, 0.3, 0.6, 0.85].map((share) => {
      const limit = Math.ceil((peakBytes - share * spared) / MIB) * MIB;
      const tight = open(limit);
      for (const step of [1, 2, 3]) tight.train(LANES, step);
      assert.ok(tight.device.runtime.memory.peakBytes <= limit);
      assert.deepEqual(tight.parameters(), expected);
      if (share === 0.85) {
        const [, lanes] = /about (\d+) lanes a shard would fit/.exec(messageOf(() => tight.train(LANES, 4, 8 * TOKENS))) ?? [];
        assert.ok(Number(lanes) > LANES / 16 && Number(lanes) < LANES / 2, `${lanes} lanes`);
        // The engine goes on.
        for (const of of [roomy, tight]) of.train(LANES, 4);
        assert.deepEqual(tight.parameters(), roomy.parameters());
      }
      tight.engine.close();
      return tight.device.economies!;
    });
    roomy.engine.close();
    const mib = [0, CHAIN_MODEL.layers, most].map((economies) => (bytesOf(economies) / MIB).toFixed(0));
    console.log(`      economies ${seen.join(", ")} of ${most}; ${mib.join(", ")} MiB of buffers with none, half and all`);
    assert.equal(seen[0], 0);
    assert.ok(seen[1]! > 0 && seen[1]! < seen[2]! && seen[2]! < seen[3]! && seen[3]! <= most);
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
