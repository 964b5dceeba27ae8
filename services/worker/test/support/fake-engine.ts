import { existsSync } from "node:fs";
import { laneStateFloats, parameterLayout, randomStream, SegueError, stretches, type ModelSpec } from "@segue/core";
import type { AdamWStep, Engine, EngineOptions, LaneStates, SegmentBatch, SegmentRules } from "@segue/engine";
import { serveCompute } from "../../src/compute/serve.js";
import { BROKEN_TOKEN, CRASH_TOKEN, HELD_TOKEN, HOLD_VARIABLE } from "./tokens.js";

interface FakeStates extends LaneStates {
  readonly values: Float32Array;
}

/**
 * Arithmetic without meaning that depends on everything a step depends on: weights, tokens, labels, weights of labels, resets, states and rules.
 * Its float32 sums differ when they are added in another order.
 */
class FakeEngine implements Engine {
  readonly description = { name: "tfjs", detail: "fake" } as const;
  readonly model: ModelSpec;
  readonly layout;
  readonly #weights: Float32Array;
  readonly #first: Float32Array;
  readonly #second: Float32Array;

  constructor({ model }: EngineOptions) {
    this.model = model;
    this.layout = parameterLayout(model);
    this.#weights = new Float32Array(this.layout.size);
    this.#first = new Float32Array(this.layout.size);
    this.#second = new Float32Array(this.layout.size);
  }

  readParameters(into: Float32Array, offset = 0): void {
    into.set(this.#weights.subarray(offset, offset + into.length));
  }
  writeParameters(from: Float32Array, offset = 0): void {
    this.#weights.set(from, offset);
  }
  readMoments(first: Float32Array, second: Float32Array, offset = 0): void {
    first.set(this.#first.subarray(offset, offset + first.length));
    second.set(this.#second.subarray(offset, offset + second.length));
  }
  writeMoments(first: Float32Array, second: Float32Array, offset = 0): void {
    this.#first.set(first, offset);
    this.#second.set(second, offset);
  }

  createStates(lanes: number): FakeStates {
    return { lanes, values: new Float32Array(lanes * laneStateFloats(this.model)) };
  }
  forkStates(states: FakeStates, lane: number, copies: number): FakeStates {
    const size = laneStateFloats(this.model);
    const forked = this.createStates(copies);
    for (let copy = 0; copy < copies; copy++)
      forked.values.set(states.values.subarray(lane * size, (lane + 1) * size), copy * size);
    return forked;
  }
  freeStates(): void {}
  zeroStates(states: FakeStates, part: "ssm" | "conv"): void {
    // Halves stand for the parts.
    const half = states.values.length / 2;
    if (part === "ssm") states.values.fill(0, 0, half);
    else states.values.fill(0, half);
  }
  readStates(states: FakeStates, into: Float32Array): void {
    into.set(states.values);
  }
  writeStates(states: FakeStates, from: Float32Array): void {
    states.values.set(from);
  }

  forwardBackward(batch: SegmentBatch, states: FakeStates, gradient: Float32Array, rules?: SegmentRules): number {
    const { tokens, tokens_BT, labels_BT, weights_BT, resets_BT } = batch;
    if (tokens_BT.includes(BROKEN_TOKEN)) throw new SegueError("ENGINE_OUT_OF_MEMORY", "no room for the segment");
    if (tokens_BT.includes(CRASH_TOKEN)) process.exit(9);
    if (tokens_BT.includes(HELD_TOKEN)) hold();
    const { values } = states;
    let loss = 0;
    gradient.fill(0);
    const reach = rules?.gradient === "full" ? 1.5 : 1;
    for (let t = 0; t < tokens_BT.length; t++) {
      const weight = weights_BT?.[t] ?? 1;
      const x = Math.fround(Math.sin(tokens_BT[t]! * 12.9898 + t) * 1.7);
      const at = (t * 7) % values.length;
      if (rules && (t % tokens) % rules.segmentTokens === 0) {
        if (!rules.carrySsm) this.zeroStates(states, "ssm");
        if (!rules.carryConv) this.zeroStates(states, "conv");
      }
      if (resets_BT?.[t]) values.fill(0);
      values[at] = values[at]! * 0.9 + x + this.#weights[t % this.#weights.length]!;
      const error = values[at] - labels_BT[t]! / 64;
      loss += weight * error * error;
      for (let i = t % 5; i < gradient.length; i += 5)
        gradient[i] = gradient[i]! + reach * weight * error * (this.#weights[i]! + x / (i + 1));
    }
    return loss;
  }

  applyAdamW(gradientSum: Float32Array, { learningRate, totalWeight, step }: AdamWStep): number {
    let square = 0;
    for (let i = 0; i < gradientSum.length; i++) {
      const g = gradientSum[i]! / totalWeight;
      square += g * g;
      this.#first[i] = this.#first[i]! * 0.9 + g * 0.1;
      this.#second[i] = this.#second[i]! * 0.95 + g * g * 0.05;
      this.#weights[i] = this.#weights[i]! - (learningRate * this.#first[i]!) / (Math.sqrt(this.#second[i]!) + 1e-3 * step);
    }
    return Math.sqrt(square);
  }

  prefill(): Float32Array {
    throw new Error("training never prefills");
  }
  score(): Float32Array {
    throw new Error("training never scores");
  }
  close(): void {}
}

function hold(): void {
  const file = process.env[HOLD_VARIABLE] ?? "";
  while (!existsSync(file)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
}

serveCompute({
  availableEngines: async () => [{ name: "tfjs", detail: "fake" }],
  createEngine: async (_choice, options) => new FakeEngine(options),
  drawParameters: (_model, seed, into) => {
    const random = randomStream(seed, "fake");
    for (const { floats } of stretches(into)) for (let i = 0; i < floats.length; i++) floats[i] = random.normal() * 0.1;
  },
});
