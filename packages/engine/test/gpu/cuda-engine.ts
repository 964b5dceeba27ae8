import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { laneStateFloats, type ModelSpec } from "@segue/core";
import { openCudaDevice } from "../../src/cuda/cuda-device.js";
import type { AdamWStep, SegmentBatch } from "../../src/engine.js";
import { DeviceEngine } from "../../src/native/device-engine.js";
import { createReferenceEngine } from "../../src/native/index.js";
import { someResets } from "../devices-support.js";
import { GOLDEN_CASES, noisyParameters, randomTokens, readGolden, relativeError, worstTensor } from "../native-support.js";
import { MODELS } from "./models.js";

/**
 * Relative errors of outputs, of whole gradients, and of the worst tensor's gradient. Sums that nearly cancel, as those of A_log and
 * dt_bias do, are far less exact in bf16 than the gradient as a whole.
 */
const LIMITS = {
  f32: { outputs: 1e-5, gradients: 1e-4, worst: 1e-3 },
  bf16: { outputs: 2e-2, gradients: 2e-2, worst: 0.25 },
} as const;

const ADAMW: AdamWStep = {
  optimizer: { learningRate: 3e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 },
  ...{ learningRate: 3e-3, step: 1, totalWeight: 100 },
};

function batchOf(model: ModelSpec, lanes: number, tokens: number, label = ""): SegmentBatch {
  const rows = lanes * tokens;
  return {
    lanes,
    tokens,
    tokens_BT: randomTokens(`tokens${label}`, rows, model.vocab),
    labels_BT: randomTokens(`labels${label}`, rows, model.vocab),
    weights_BT: Float32Array.from({ length: rows }, (_, r) => (r % 5) / 2),
    resets_BT: Uint8Array.from(someResets(`engine${label}`, rows, 50)),
  };
}

const open = (
  model: ModelSpec,
  precision: "f32" | "bf16",
  env = process.env,
  economies?: number,
): DeviceEngine<unknown, unknown> => {
  const device = openCudaDevice(precision, 0, env);
  if (economies !== undefined) device.economise!(economies);
  return new DeviceEngine("cuda", device, model);
};

const digest = (...arrays: Float32Array[]): string => {
  const hash = createHash("sha256");
  for (const array of arrays) hash.update(array);
  return hash.digest("hex");
};

for (const precision of ["f32", "bf16"] as const) {
  const { outputs, gradients, worst: worstLimit } = LIMITS[precision];
  const assertGradient = (model: ModelSpec, actual: Float32Array, expected: Float32Array): void => {
    const error = relativeError(actual, expected);
    assert.ok(error < gradients, `gradient: ${error}`);
    const worst = worstTensor(model, actual, expected);
    assert.ok(worst.error < worstLimit, `${worst.name}: ${worst.error}`);
  };

  describe(`cuda engine (${precision})`, () => {
    for (const name of GOLDEN_CASES) {
      it(`agrees with golden values of ${name}`, () => {
        const golden = readGolden(name);
        const { model, lanes, tokens } = golden;
        const engine = open(model, precision);
        engine.writeParameters(golden.parameters);
        const gradient = new Float32Array(engine.layout.size).fill(NaN);
        const batch = { lanes, tokens, tokens_BT: golden.input_BT, labels_BT: golden.targets_BT };
        const loss = engine.forwardBackward(batch, engine.createStates(lanes), gradient);
        assert.ok(Math.abs(loss / (lanes * tokens) / golden.loss - 1) < outputs);
        assertGradient(
          model,
          gradient.map((g) => g / (lanes * tokens)),
          golden.gradient,
        );
        engine.close();
      });
    }

    for (const [name, model] of Object.entries(MODELS)) {
      it(`agrees with the reference engine on the ${name} model: losses, states, gradients, logits, segments carried`, () => {
        const [lanes, tokens] = [2, 150];
        const [engine, reference] = [open(model, precision), createReferenceEngine(model)];
        const run = (of: DeviceEngine<never, never>): Record<string, Float32Array> => {
          of.writeParameters(noisyParameters(model));
          const states = of.createStates(lanes);
          of.score(batchOf(model, lanes, 70, "first"), states);
          const gradient = new Float32Array(of.layout.size).fill(NaN);
          const loss = of.forwardBackward(batchOf(model, lanes, tokens), states, gradient);
          const finals = new Float32Array(lanes * laneStateFloats(model));
          of.readStates(states, finals);
          const losses = of.score(batchOf(model, lanes, 33, "then"), states);
          const logits = of.prefill(batchOf(model, lanes, 1, "last"), states);
          return { loss: Float32Array.of(loss), gradient, finals, losses, logits };
        };
        const actual = run(engine as unknown as DeviceEngine<never, never>);
        const expected = run(reference as unknown as DeviceEngine<never, never>);
        for (const quantity of ["loss", "finals", "losses", "logits"]) {
          const error = relativeError(actual[quantity]!, expected[quantity]!);
          assert.ok(error < outputs, `${quantity}: ${error}`);
        }
        assertGradient(model, actual.gradient!, expected.gradient!);
        engine.close();
      });

      it(`lets gradients flow through segments on the ${name} model as the reference engine does`, () => {
        const rules = { segmentTokens: 70, gradient: "full", carrySsm: true, carryConv: true } as const;
        const gradientOf = (of: DeviceEngine<never, never>): Float32Array => {
          of.writeParameters(noisyParameters(model));
          const gradient = new Float32Array(of.layout.size).fill(NaN);
          of.forwardBackward(batchOf(model, 2, 150), of.createStates(2), gradient, rules);
          return gradient;
        };
        const engine = open(model, precision);
        const actual = gradientOf(engine as unknown as DeviceEngine<never, never>);
        const expected = gradientOf(createReferenceEngine(model) as unknown as DeviceEngine<never, never>);
        assertGradient(model, actual, expected);
        engine.close();
      });

      it(`gives the same bits in every run, by whole steps or by halves, whatever is computed again, on the ${name} model`, () => {
        const shards = [0, 1, 2, 3].map((shard) => batchOf(model, 1, 130, `shard ${shard}`));
        const whole = (env?: NodeJS.ProcessEnv, economies?: number): string => {
          const engine = open(model, precision, env, economies);
          engine.writeParameters(noisyParameters(model));
          const parts = shards.map((batch) => ({ batch, states: engine.createStates(1) }));
          // The third step replays what the second recorded.
          const results = [1, 2, 3].map((step) => engine.trainStep(parts, { ...ADAMW, step }));
          const losses = results.flatMap((result) => result().lossSums);
          const parameters = new Float32Array(engine.layout.size);
          engine.readParameters(parameters);
          engine.close();
          return digest(Float32Array.from(losses), parameters);
        };
        const halves = (): string => {
          const engine = open(model, precision);
          engine.writeParameters(noisyParameters(model));
          const states = shards.map(() => engine.createStates(1));
          const losses: number[] = [];
          for (const step of [1, 2, 3]) {
            const [a, b, c, d] = shards.map((batch, i) => {
              const gradient = new Float32Array(engine.layout.size);
              losses.push(engine.forwardBackward(batch, states[i]!, gradient));
              return gradient;
            }) as [Float32Array, Float32Array, Float32Array, Float32Array];
            const left = a.map((x, i) => x + b[i]!);
            const right = c.map((x, i) => x + d[i]!);
            engine.applyAdamW(
              left.map((x, i) => x + right[i]!),
              { ...ADAMW, step },
            );
          }
          const parameters = new Float32Array(engine.layout.size);
          engine.readParameters(parameters);
          engine.close();
          return digest(Float32Array.from(losses), parameters);
        };
        assert.equal(whole(), whole());
        assert.equal(whole(), halves());
        assert.equal(whole(), whole({ ...process.env, SEGUE_CUDA_RECOMPUTE: "layers" }));
        for (let economies = 1; economies < 2 * model.layers; economies++) assert.equal(whole(), whole(process.env, economies));
      });
    }
  });
}
