import assert from "node:assert/strict";
import { headStatistics, laneStateFloats, randomStream, validateJobSpec, varianceGrowth, type StateSample } from "@segue/core";

const { model } = validateJobSpec({
  model: { layers: 2, dModel: 16, headDim: 8, dState: 4 },
  data: { passkey: {} },
  train: { steps: 1 },
}).spec;

describe("headStatistics", () => {
  const random = randomStream(1, "state");
  const state = Float32Array.from({ length: laneStateFloats(model) }, () => 1000 + random.normal());

  it("agrees with the definitions in float64, head by head", () => {
    const found = headStatistics(model, state);
    assert.deepEqual(
      found.map(({ layer, head }) => [layer, head]),
      [0, 1].flatMap((layer) => [0, 1, 2, 3].map((head) => [layer, head])),
    );
    found.forEach((statistics, index) => {
      const values = Array.from(state.subarray(index * 32, (index + 1) * 32));
      const mean = values.reduce((sum, value) => sum + value / 32, 0);
      const variance = values.reduce((sum, value) => sum + (value - mean) ** 2 / 31, 0);
      assert.ok(Math.abs(statistics.mean - mean) < 1e-9);
      assert.ok(Math.abs(statistics.variance / variance - 1) < 1e-9);
      assert.ok(Math.abs(statistics.rms ** 2 - (mean ** 2 + (variance * 31) / 32)) < 1e-6);
      assert.equal(statistics.largest, Math.max(...values));
    });
  });

  it("refuses a state of another size", () => {
    assert.throws(() => headStatistics(model, state.subarray(0, 100)), RangeError);
  });
});

describe("varianceGrowth", () => {
  const sample = (tokens: number, ...variances: number[]): StateSample => ({
    tokens,
    heads: variances.map((variance, head) => ({ layer: 0, head, mean: 0, variance, rms: 0, largest: 0 })),
  });

  it("compares the largest variances beyond and within the training length, fastest first", () => {
    const growth = varianceGrowth([sample(128, 1, 2), sample(256, 4, 1), sample(384, 4, 9), sample(512, 2, 20)], 256);
    assert.deepEqual(growth, [
      { layer: 0, head: 1, within: 2, beyond: 20, ratio: 10 },
      { layer: 0, head: 0, within: 4, beyond: 4, ratio: 1 },
    ]);
  });

  it("says nothing without samples on both sides", () => {
    assert.deepEqual(varianceGrowth([sample(128, 1)], 256), []);
    assert.deepEqual(varianceGrowth([sample(128, 1)], 64), []);
  });
});
