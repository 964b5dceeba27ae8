import assert from "node:assert/strict";
import {
  byteTokenizer,
  laneStateFloats,
  NO_CURE,
  passkeyPrompt,
  randomStream,
  validateJobSpec,
  type PasskeyPrompt,
} from "@segue/core";
import { availableEngines, createEngine, greedyDecode, initialParameters, type Engine } from "@segue/engine";
import { evaluatePasskeyCell } from "../src/tasks/passkey.js";
import { PrefixStates, SEGMENT_TOKENS } from "../src/prefix-states.js";

const { spec } = validateJobSpec({
  model: { layers: 2, dModel: 32, headDim: 16, dState: 16, chunk: 64 },
  data: { passkey: {} },
  train: { steps: 1 },
});
const tokenizer = byteTokenizer();
const settings = { samples: 5, digits: 5, seed: 3, template: "paper", carryState: true, stopWidth: 0 } as const;
const cellOf = (length: number, depth: number) => ({
  ...settings,
  task: "passkey" as const,
  cure: NO_CURE,
  jobId: "job",
  step: 1,
  digest: "ab".repeat(32),
  evaluationId: "job_1_passkey",
  length,
  depth,
});

/** One prompt by itself from the first token on, its pieces cut where a fork cuts them. */
function plainly(engine: Engine, prompt: PasskeyPrompt): { logits: Float32Array; state: Float32Array; decoded: string } {
  const states = engine.createStates(1);
  let logits = new Float32Array(0);
  for (const [from, to] of [
    [0, prompt.sharedTokens],
    [prompt.sharedTokens, prompt.tokens],
  ] as const) {
    for (let at = from; at < to; at += SEGMENT_TOKENS) {
      const tokens = Math.min(SEGMENT_TOKENS, to - at);
      logits = engine.prefill({ lanes: 1, tokens, tokens_BT: prompt.read(at, tokens) }, states) as Float32Array<ArrayBuffer>;
    }
  }
  const state = new Float32Array(laneStateFloats(spec.model));
  engine.readStates(states, state);
  const decoded = tokenizer.decode([...greedyDecode(engine, states, logits, prompt.answerTokens)]);
  engine.freeStates(states);
  return { logits, state, decoded };
}

const promptsOf = (length: number, depth: number): PasskeyPrompt[] =>
  Array.from({ length: settings.samples }, (_, sample) =>
    passkeyPrompt({ ...settings, tokenizer, contextTokens: length, depth, sample }),
  );

for (const name of ["cpu", "tfjs"] as const) {
  describe(`prefix forking (${name})`, () => {
    let engine: Engine;
    before(async function () {
      const offer = (await availableEngines()).find((candidate) => candidate.name === name);
      if (offer?.reason !== undefined) return this.skip();
      engine = await createEngine(name, { model: spec.model, precision: "f32", threads: 1 });
      const random = randomStream(5, "weights");
      engine.writeParameters(initialParameters(spec.model, 1).map((value) => value * (1 + 0.5 * random.normal())));
    });
    after(() => engine?.close());

    it("answers as each prompt alone would, and the states and logits are the same to the bit", () => {
      const prefixes = new PrefixStates(engine);
      const subject = { engine, tokenizer, segmentTokens: 64, prefixes };
      const depth = 0.7;
      const prompts = promptsOf(2500, depth);
      const result = evaluatePasskeyCell(subject, cellOf(2500, depth));
      const alone = prompts.map((prompt) => plainly(engine, prompt));
      assert.deepEqual(
        result.answers.map(({ decoded }) => decoded),
        alone.slice(0, result.answers.length).map(({ decoded }) => decoded),
      );

      const [first] = prompts;
      const trunk = prefixes.after(first!, first!.sharedTokens);
      const states = engine.forkStates(trunk, 0, prompts.length);
      const rest = first!.tokens - first!.sharedTokens;
      assert.ok(rest <= SEGMENT_TOKENS);
      const tokens_BT = new Int32Array(prompts.flatMap((prompt) => [...prompt.read(prompt.sharedTokens, rest)]));
      const logits = engine.prefill({ lanes: prompts.length, tokens: rest, tokens_BT }, states);
      const floats = laneStateFloats(spec.model);
      const finals = new Float32Array(prompts.length * floats);
      engine.readStates(states, finals);
      alone.forEach((own, lane) => {
        const { vocab } = spec.model;
        assert.deepEqual(logits.slice(lane * vocab, (lane + 1) * vocab), own.logits);
        assert.deepEqual(finals.slice(lane * floats, (lane + 1) * floats), own.state);
      });
      for (const lanes of [trunk, states]) engine.freeStates(lanes);
      prefixes.clear();
    });

    it("gives the same whatever was evaluated before, and runs the filler of a heat map about once", () => {
      const cells = [1500, 3000].flatMap((length) => [0.2, 0.5, 0.8].map((depth) => cellOf(length, depth)));
      const withoutCosts = (cell: (typeof cells)[0], prefixes: PrefixStates) => {
        const result = evaluatePasskeyCell({ engine, tokenizer, segmentTokens: 64, prefixes }, cell);
        return { tokens: result.tokens, found: { ...result, tokens: 0, ms: 0 } };
      };
      const shared = new PrefixStates(engine);
      const inOrder = cells.map((cell) => withoutCosts(cell, shared));
      const alone = cells.map((cell) => {
        const own = new PrefixStates(engine);
        const result = withoutCosts(cell, own);
        own.clear();
        return result;
      });
      const few = new PrefixStates(engine, 1);
      const backwards = [...cells].reverse().map((cell) => withoutCosts(cell, few));
      assert.deepEqual(
        inOrder.map(({ found }) => found),
        alone.map(({ found }) => found),
      );
      assert.deepEqual(
        backwards.reverse().map(({ found }) => found),
        alone.map(({ found }) => found),
      );

      const total = (results: { tokens: number }[]): number => results.reduce((sum, { tokens }) => sum + tokens, 0);
      const plain = cells.reduce((sum, { length }) => sum + settings.samples * length, 0);
      assert.ok(total(inOrder) < 0.65 * plain, `${total(inOrder)} tokens of the ${plain} that single prompts take`);
      assert.ok(total(inOrder) < total(alone));
      for (const prefixes of [shared, few]) prefixes.clear();
    });
  });
}
