import assert from "node:assert/strict";
import type { Engine } from "../src/engine.js";
import { createCpuEngine, createReferenceEngine } from "../src/native/index.js";
import { GOLDEN_CASES, readGolden, relativeError, worstTensor, type GoldenCase } from "./native-support.js";

/**
 * Hugging Face rounds some of its float64 pass to float32, so golden gradients that nearly cancel are off by up to 1.4e-6 (finite
 * differences of the reference confirm the reference there, see native-reference.test.ts).
 */
const ENGINES = {
  reference: {
    create: async ({ model }: GoldenCase): Promise<Engine> => createReferenceEngine(model),
    outputs: 1e-6,
    gradients: 2e-6,
  },
  cpu: {
    create: ({ model }: GoldenCase): Promise<Engine> => createCpuEngine({ model, precision: "f32", threads: 2 }),
    outputs: 1e-5,
    gradients: 1e-4,
  },
};

for (const [engineName, { create, outputs, gradients }] of Object.entries(ENGINES)) {
  describe(`${engineName} engine against golden values`, () => {
    for (const name of GOLDEN_CASES) {
      it(`agrees on ${name}: loss, last logits and losses within ${outputs}, every gradient, whole and through segments, within ${gradients}`, async () => {
        const golden = readGolden(name);
        const { model, lanes, tokens } = golden;
        const engine = await create(golden);
        engine.writeParameters(golden.parameters);
        const gradient = new Float32Array(engine.layout.size).fill(NaN);
        const batch = { lanes, tokens, tokens_BT: golden.input_BT, labels_BT: golden.targets_BT };

        const loss = engine.forwardBackward(batch, engine.createStates(lanes), gradient);
        assert.ok(Math.abs(loss / (lanes * tokens) / golden.loss - 1) < outputs);
        const mean = gradient.map((g) => g / (lanes * tokens));
        const worst = worstTensor(model, mean, golden.gradient);
        assert.ok(worst.error < gradients, `${worst.name}: ${worst.error}`);

        const full = { segmentTokens: Math.ceil(tokens / 3), gradient: "full", carrySsm: true, carryConv: true } as const;
        const throughSegments = new Float32Array(engine.layout.size).fill(NaN);
        engine.forwardBackward(batch, engine.createStates(lanes), throughSegments, full);
        const cut = worstTensor(
          model,
          throughSegments.map((g) => g / (lanes * tokens)),
          golden.gradient,
        );
        assert.ok(cut.error < gradients, `${cut.name}, through segments: ${cut.error}`);

        const logits_BV = engine.prefill(batch, engine.createStates(lanes));
        const expected = Array.from({ length: lanes }, (_, b) =>
          Array.from(golden.logits.subarray(((b + 1) * tokens - 1) * model.vocab, (b + 1) * tokens * model.vocab)),
        );
        assert.ok(relativeError(logits_BV, expected.flat()) < outputs);

        const losses_BT = engine.score(batch, engine.createStates(lanes));
        assert.ok(relativeError(losses_BT, crossEntropies(golden)) < outputs);
        engine.close();
      });
    }
  });
}

/** From the golden logits. */
function crossEntropies({ logits, targets_BT, model: { vocab } }: GoldenCase): number[] {
  return Array.from(targets_BT, (target, row) => {
    const logits_V = logits.subarray(row * vocab, (row + 1) * vocab);
    return Math.log(logits_V.reduce((sum, logit) => sum + Math.exp(logit), 0)) - logits_V[target]!;
  });
}
