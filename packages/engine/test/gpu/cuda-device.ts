import assert from "node:assert/strict";
import { roundToBf16 } from "@segue/core";
import { openCudaDevice, type CudaDevice } from "../../src/cuda/cuda-device.js";
import type { CudaSharing } from "../../src/cuda/cuda-sharing.js";
import { outerStep, subtract } from "../../src/devices/reference/outer.js";
import { referenceDevice } from "../../src/devices/reference/reference-device.js";
import { DEVICE_CASES } from "../devices-cases.js";
import { assertAgrees, benchOf, resultsOn, type DeviceCase } from "../devices-support.js";
import { noise } from "../native-support.js";

describe("cuda device (f32) against the reference device", () => {
  let device: CudaDevice;

  before(() => {
    device = openCudaDevice("f32");
  });
  after(() => device.close());

  for (const [name, run] of Object.entries(DEVICE_CASES)) {
    it(`agrees: ${name}`, () => assertAgrees(resultsOn(device, run), resultsOn(referenceDevice, run)));
  }

  /** Numbers of every magnitude, ties, and what is no ordinary number. */
  const oddFloats = (): Float32Array => {
    const some = noise("odd", 1003).map((x, i) => x * 2 ** ((i % 250) - 140));
    const bits = new Uint32Array(some.buffer);
    for (let i = 0; i < 100; i++) bits[i] = (bits[i]! & 0xffff_0000) | 0x8000;
    some.set([0, -0, Infinity, -Infinity, 3.4e38, -3.4e38, 1e-45], 100);
    return some;
  };
  const bitsOf = (floats: Float32Array): number[] => [...new Uint32Array(floats.buffer)];

  it("rounds to bf16 and widens to the bits of the host", () => {
    const [floats, wire] = [oddFloats(), new Uint16Array(1003)];
    const memory = device.floats(2 * floats.length + 1);
    const given = device.slice(memory, 0, floats.length);
    device.upload(floats, given);
    const withCopy = { ...given, bf16: given.f32 + 4 * (floats.length + 1) };
    const sharing = device.sharing as CudaSharing;
    sharing.round(withCopy);
    roundToBf16(floats, wire);
    const found = new Float32Array(floats.length);
    device.download(given, found);
    assert.deepEqual(bitsOf(found), bitsOf(floats));
    device.fill(given, 7);
    sharing.widen(withCopy);
    device.download(given, found);
    assert.deepEqual(bitsOf(found), bitsOf(floats));
  });

  it("makes outer steps to the bits of the host", () => {
    const length = 1003;
    const vectors = {
      changes: noise("changes", length, 0.1),
      start: noise("start", length),
      velocity: noise("velocity", length, 0.1),
      parameters: new Float32Array(length),
    };
    const settings = { replicas: 7, learningRate: 0.7, momentum: 0.9 };
    const run: DeviceCase = ({ device, ...b }) => {
      const floats = (values: Float32Array) => b.floats(values);
      const { changes, start, velocity } = vectors;
      const on = {
        ...{ changes: floats(changes), start: floats(start), velocity: floats(velocity), parameters: b.poison(length) },
        difference: b.poison(length),
      };
      device.subtract(on.start, on.changes, on.difference);
      device.outerStep({ ...on, ...settings });
      return Object.fromEntries(Object.entries(on).map(([name, data]) => [name, { data, length }]));
    };
    const found = resultsOn(device, run);
    const difference = new Float32Array(length);
    subtract(vectors.start, vectors.changes, difference);
    outerStep({ ...vectors, ...settings });
    for (const [name, values] of Object.entries({ ...vectors, difference })) {
      assert.deepEqual(bitsOf(found[name]!), bitsOf(values), name);
    }
  });

  it("keeps the copy for matrix products up to date when it copies and makes outer steps", () => {
    const rounding = openCudaDevice("bf16");
    try {
      const length = 1003;
      const bench = benchOf(rounding);
      const parameters = rounding.floats(length, "mirrored");
      const roundedCopy = (): number[] => {
        const wire = new Uint16Array(length + 1);
        rounding.download({ ...parameters, f32: parameters.bf16 }, new Float32Array(wire.buffer));
        return [...wire.subarray(0, length)];
      };
      const expected = (): number[] => {
        const [floats, wire] = [new Float32Array(length), new Uint16Array(length)];
        rounding.download(parameters, floats);
        roundToBf16(floats, wire);
        return [...wire];
      };
      rounding.copy(bench.noise("start", length), parameters);
      assert.deepEqual(roundedCopy(), expected());
      const [changes, start, velocity] = [bench.noise("changes", length), bench.noise("start", length), bench.noise("u", length)];
      rounding.outerStep({ changes, start, velocity, parameters, replicas: 3, learningRate: 0.7, momentum: 0.9 });
      assert.deepEqual(roundedCopy(), expected());
    } finally {
      rounding.close();
    }
  });
});
