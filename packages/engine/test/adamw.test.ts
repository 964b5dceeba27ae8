import assert from "node:assert/strict";
import type { ParameterLayout } from "@segue/core";
import type { AdamWStep } from "../src/engine.js";
import { applyAdamW, globalNorm } from "../src/optimizer/adamw.js";

const LAYOUT: ParameterLayout = {
  size: 2,
  entries: [
    { name: "matrix", shape: [1, 1], offset: 0, size: 1, decay: true },
    { name: "vector", shape: [1], offset: 1, size: 1, decay: false },
  ],
};
const OPTIMIZER = { learningRate: 1, beta1: 0.5, beta2: 0.75, epsilon: 0, weightDecay: 0.5, clipNorm: 0 };

function vectors(): { parameters: Float32Array; first: Float32Array; second: Float32Array } {
  return { parameters: Float32Array.of(2, 2), first: new Float32Array(2), second: new Float32Array(2) };
}

function step(number: number, totalWeight: number, optimizer: AdamWStep["optimizer"] = OPTIMIZER): AdamWStep {
  return { optimizer, learningRate: 0.25, step: number, totalWeight };
}

describe("applyAdamW", () => {
  it("gives the numbers worked out by hand, decaying matrices only", () => {
    const all = vectors();
    // Gradients 12 / 4 = 3 and 16 / 4 = 4: norm 5.
    // First step: m = 0.5 g = 1.5, 2; v = 0.25 g^2 = 2.25, 4; corrected by 1 - 0.5 and 1 - 0.75: g and g^2, so the update is 1.
    // matrix: 2 (1 - 0.25 0.5) - 0.25 = 1.5; vector: 2 - 0.25 = 1.75.
    assert.equal(applyAdamW(all, Float32Array.of(12, 16), LAYOUT, step(1, 4)), 5);
    assert.deepEqual(all, {
      parameters: Float32Array.of(1.5, 1.75),
      first: Float32Array.of(1.5, 2),
      second: Float32Array.of(2.25, 4),
    });
    // Second step, gradients 0 and 4: m = 0.75, 3; v = 1.6875, 7; corrections 1 - 0.25 = 0.75 and 1 - 0.5625 = 0.4375.
    // matrix: m' = 1, v' = 27/7, update sqrt(7/27); 1.5 (0.875) - 0.25 sqrt(7/27). vector: m' = 4, v' = 16, update 1; 1.75 - 0.25.
    assert.equal(applyAdamW(all, Float32Array.of(0, 4), LAYOUT, step(2, 1)), 4);
    assert.deepEqual(all, {
      parameters: Float32Array.of(1.3125 - 0.25 * Math.sqrt(7 / 27), 1.5),
      first: Float32Array.of(0.75, 3),
      second: Float32Array.of(1.6875, 7),
    });
  });

  it("scales the whole gradient down to the largest norm, and never up", () => {
    const clipped = vectors();
    // Norm 5 clipped to 1: gradients 0.6 and 0.8, first moments half of that.
    assert.equal(applyAdamW(clipped, Float32Array.of(3, 4), LAYOUT, step(1, 1, { ...OPTIMIZER, clipNorm: 1 })), 5);
    assert.deepEqual(clipped.first, Float32Array.of(0.3, 0.4));
    const small = vectors();
    assert.equal(applyAdamW(small, Float32Array.of(3, 4), LAYOUT, step(1, 1, { ...OPTIMIZER, clipNorm: 10 })), 5);
    assert.deepEqual(small.first, Float32Array.of(1.5, 2));
  });

  it("takes a step in which nothing has weight for a zero gradient", () => {
    const all = vectors();
    assert.equal(applyAdamW(all, Float32Array.of(0, 0), LAYOUT, step(1, 0, { ...OPTIMIZER, epsilon: 1e-8 })), 0);
    assert.deepEqual(all.parameters, Float32Array.of(1.75, 2));
  });

  it("sums the norm in double precision", () => {
    // In float32 the ones would be lost beside 1e8.
    const values = new Float32Array(10_001).fill(1);
    values[0] = 1e4;
    assert.equal(globalNorm(values), Math.sqrt(1e8 + 1e4));
  });
});
