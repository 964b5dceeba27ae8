import assert from "node:assert/strict";
import { byteTokenizer, NO_CURE, validateJobSpec, wilsonInterval } from "@segue/core";
import { PrefixStates } from "../src/prefix-states.js";
import { evaluatePasskeyCell, type PasskeyCell } from "../src/tasks/passkey.js";
import { RememberingEngine } from "./remembering-engine.js";

const { spec } = validateJobSpec({
  model: { layers: 1, dModel: 16, headDim: 8, dState: 8 },
  data: { passkey: {} },
  train: { steps: 1 },
});
const cell: PasskeyCell = {
  task: "passkey",
  cure: NO_CURE,
  jobId: "job-1",
  step: 10,
  digest: "ab".repeat(32),
  evaluationId: "job-1_10_passkey",
  length: 3_000,
  depth: 0.25,
  samples: 20,
  digits: 5,
  seed: 7,
  template: "paper",
  carryState: true,
  stopWidth: 0,
};

describe("evaluatePasskeyCell", () => {
  const evaluate = (changes: Partial<PasskeyCell>, segmentTokens = 256) => {
    const engine = new RememberingEngine(spec.model);
    const prefixes = new PrefixStates(engine);
    const result = evaluatePasskeyCell({ engine, tokenizer: byteTokenizer(), segmentTokens, prefixes }, { ...cell, ...changes });
    prefixes.clear();
    return { engine, result };
  };

  it("counts every prompt right that a carried state can answer", () => {
    const { engine, result } = evaluate({});
    assert.equal(result.correct, 20);
    assert.equal(result.samples, 20);
    assert.match(result.answers[0]!.decoded, /^ \d{5}$/, "as many tokens as a space and the key need");
    assert.equal(result.answers[0]!.decoded.trim(), result.answers[0]!.expected);
    assert.ok(result.answers.length < 20, "only a few answers are kept");
    assert.ok(Math.max(...engine.segments.map(({ tokens }) => tokens)) <= 1_024);
    assert.ok(Math.max(...engine.segments.map(({ lanes }) => lanes)) <= 16);
    assert.equal(engine.liveStates, 0);
  });

  it("runs what comes before the needle once, however many prompts there are", () => {
    const { engine, result } = evaluate({});
    const tokens = engine.segments.reduce((sum, segment) => sum + segment.lanes * segment.tokens, 0);
    assert.equal(result.tokens, tokens);
    const share = tokens / (20 * cell.length);
    assert.ok(share > 0.7 && share < 0.82, `${share}: a quarter of the context is shared by 20 prompts`);
  });

  it("ends early when the interval is narrow, at the same prompt each time", () => {
    const { result } = evaluate({ samples: 100, stopWidth: 0.2 });
    assert.deepEqual([result.samples, result.correct], [16, 16]);
    assert.deepEqual(result.interval, wilsonInterval(16, 16));
    assert.equal(evaluate({ samples: 100, stopWidth: 0.1 }).result.samples, 48);
    assert.equal(evaluate({ samples: 40, stopWidth: 0.01 }).result.samples, 40);
  });

  it("finds the control, whose state ends at the job's segment boundaries, wrong unless needle and question share a segment", () => {
    assert.equal(evaluate({ carryState: false }).result.correct, 0);
    assert.equal(evaluate({ carryState: false }, 4_096).result.correct, 20);
  });

  it("answers for both templates and for more digits than the paper's five tokens hold", () => {
    assert.equal(evaluate({ digits: 12 }).result.correct, 20);
    const { result } = evaluate({ template: "code", samples: 3 });
    assert.equal(result.correct, 3);
  });

  it("asks other prompts with another seed and the same ones with the same", () => {
    const keys = (seed: number): string[] => evaluate({ seed, samples: 4 }).result.answers.map(({ expected }) => expected);
    assert.deepEqual(keys(7), keys(7));
    assert.notDeepEqual(keys(7), keys(8));
  });

  it("frees its states when the model fails", () => {
    const engine = new RememberingEngine(spec.model);
    engine.prefill = () => {
      throw new Error("out of memory");
    };
    const subject = { engine, tokenizer: byteTokenizer(), segmentTokens: 256, prefixes: new PrefixStates(engine) };
    assert.throws(() => evaluatePasskeyCell(subject, cell), /out of memory/);
    assert.throws(() => evaluatePasskeyCell(subject, { ...cell, carryState: false }), /out of memory/);
    assert.equal(engine.liveStates, 0);
  });
});
