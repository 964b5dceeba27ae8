import assert from "node:assert/strict";
import { createTfjsEngine } from "../src/tfjs/tfjs-engine.js";
import { GOLDEN_CASES, readGolden, relativeError, worstTensor } from "./native-support.js";

describe("tfjs engine against Hugging Face's numbers", () => {
  for (const name of GOLDEN_CASES) {
    it(`agrees on loss, logits and every gradient of ${name}, also through segments`, async () => {
      const golden = readGolden(name);
      const { model, lanes, tokens } = golden;
      const engine = await createTfjsEngine({ model, precision: "f32", threads: 1 }, ["wasm"]);
      engine.writeParameters(golden.parameters);
      const batch = { lanes, tokens, tokens_BT: golden.input_BT, labels_BT: golden.targets_BT };

      for (const segmentTokens of [tokens, Math.ceil(tokens / 3)]) {
        const rules = { segmentTokens, gradient: "full", carrySsm: true, carryConv: true } as const;
        const gradient = new Float32Array(engine.layout.size).fill(NaN);
        const states = engine.createStates(lanes);
        const loss = engine.forwardBackward(batch, states, gradient, rules) / (lanes * tokens);
        assert.ok(Math.abs(loss - golden.loss) < 1e-5 * golden.loss, `loss ${loss}, expected ${golden.loss}`);
        const worst = worstTensor(
          model,
          gradient.map((sum) => sum / (lanes * tokens)),
          golden.gradient,
        );
        assert.ok(worst.error < 1e-4, `${worst.name} is off by ${worst.error} in segments of ${segmentTokens}`);
      }

      // Prefill gives the logits after a segment's last token only, so the logits are taken one prefix at a time.
      for (const length of [1, 2, Math.floor(tokens / 2), tokens]) {
        const prefix_BT = new Int32Array(lanes * length);
        const expected = new Float32Array(lanes * model.vocab);
        for (let lane = 0; lane < lanes; lane++) {
          prefix_BT.set(golden.input_BT.subarray(lane * tokens, lane * tokens + length), lane * length);
          const row = lane * tokens + length - 1;
          expected.set(golden.logits.subarray(row * model.vocab, (row + 1) * model.vocab), lane * model.vocab);
        }
        const fresh = engine.createStates(lanes);
        const error = relativeError(engine.prefill({ lanes, tokens: length, tokens_BT: prefix_BT }, fresh), expected);
        assert.ok(error < 1e-5, `logits after ${length} tokens are off by ${error}`);
      }
      engine.close();
    });
  }
});
