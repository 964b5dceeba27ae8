import assert from "node:assert/strict";
import {
  convStatistics,
  headHistograms,
  headStatistics,
  laneStateFloats,
  modelWidths,
  type ModelSpec,
  type StateSample,
} from "@segue/core";
import { curedEngine } from "../src/cures/cured-engine.js";
import type { InferenceEngine } from "../src/cures/state-rule.js";
import { decayRates } from "../src/decay-rates.js";
import type { Engine } from "../src/engine.js";
import { createReferenceEngine } from "../src/native/index.js";
import { createEngine } from "../src/create-engine.js";
import { traceStates } from "../src/trace-states.js";
import { noisyParameters, randomTokens } from "./native-support.js";

const MODEL: ModelSpec = {
  ...{ layers: 2, dModel: 24, dState: 10, headDim: 6, expand: 2, dConv: 4, groups: 2, chunk: 8, vocab: 31, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};
const TEXT = randomTokens("traced", 100, MODEL.vocab);
const read = (from: number, count: number): Int32Array => TEXT.subarray(from, from + count);
const { heads } = modelWidths(MODEL);

/** The state after the text's first tokens, read in one piece, from a state that is `start` everywhere in layer 0. */
function stateAfter(engine: InferenceEngine & Partial<Engine>, tokens: number, start = 0): Float32Array {
  const states = engine.createStates(1);
  const state_F = new Float32Array(laneStateFloats(MODEL));
  state_F.fill(start, 0, heads * MODEL.headDim * MODEL.dState);
  if (start !== 0) engine.writeStates!(states, state_F);
  engine.prefill({ lanes: 1, tokens, tokens_BT: read(0, tokens) }, states);
  engine.readStates(states, state_F);
  engine.freeStates(states);
  return state_F;
}

describe("traceStates", () => {
  let engine: Engine;
  before(() => {
    engine = createReferenceEngine(MODEL);
    engine.writeParameters(noisyParameters(MODEL));
  });
  after(() => engine.close());
  const trace = (of: InferenceEngine, everyTokens: number, more = {}): StateSample[] => [
    ...traceStates(of, read, { tokens: 100, everyTokens, ...more }),
  ];

  it("has the statistics of the state at each place, and of what is left at the end", () => {
    const samples = trace(engine, 32);
    assert.deepEqual(
      samples.map(({ tokens }) => tokens),
      [32, 64, 96, 100],
    );
    for (const { tokens, heads: found, conv } of samples) {
      const state_F = stateAfter(engine, tokens);
      const near = (a: object, b: object): void =>
        Object.entries(b as Record<string, number>).forEach(([name, value]) => {
          const other = (a as Record<string, number>)[name]!;
          assert.ok(
            Math.abs(other - value) <= 1e-5 * Math.max(1e-3, Math.abs(value)),
            `${name} at ${tokens}: ${other}, not ${value}`,
          );
        });
      headStatistics(MODEL, state_F).forEach((head, index) => near(found[index]!, head));
      convStatistics(MODEL, state_F).forEach((layer, index) => near(conv[index]!, layer));
    }
  });

  it("knows what is left of a state before the text: retention times it, in the first layer", () => {
    const size = MODEL.headDim * MODEL.dState;
    for (const { tokens, inputs } of trace(engine, 50)) {
      const [from_F, other_F] = [stateAfter(engine, tokens), stateAfter(engine, tokens, 1000)];
      for (let head = 0; head < heads; head++) {
        const left = (other_F[head * size]! - from_F[head * size]!) / 1000;
        const { retention } = inputs![head]!;
        assert.ok(Math.abs(retention - left) < 1e-6 + 1e-4 * left, `${tokens}.${head}: ${retention}, not ${left}`);
      }
    }
  });

  it("gives the means of what entered between two samples: those of a long stretch are the means of the short ones", () => {
    const [long, short] = [trace(engine, 50), trace(engine, 25)];
    const a_LH = decayRates(engine);
    long.forEach(({ inputs }, stretch) => {
      inputs!.forEach((whole, index) => {
        const [first, second] = [short[2 * stretch]!.inputs![index]!, short[2 * stretch + 1]!.inputs![index]!];
        assert.ok(Math.abs(whole.dt - (first.dt + second.dt) / 2) < 1e-6);
        for (const name of ["x", "b", "c"] as const) {
          const mean = Math.sqrt((first[name] ** 2 + second[name] ** 2) / 2);
          assert.ok(Math.abs(whole[name] - mean) < 1e-5 * mean, name);
        }
      });
    });
    const { inputs } = long[0]!;
    inputs!.forEach(({ dt, retention }, index) => assert.ok(Math.abs(Math.exp(50 * dt * a_LH[index]!) / retention - 1) < 1e-4));
    const groupOf = (head: number): number => inputs![head]!.b;
    assert.equal(groupOf(0), groupOf(3));
    assert.notEqual(groupOf(3), groupOf(4));
  });

  it("has histograms at the first sample at or behind the chosen places only", () => {
    const samples = trace(engine, 32, { histogramTokens: [32, 65] });
    assert.deepEqual(
      samples.map(({ histograms }) => histograms !== undefined),
      [true, false, true, false],
    );
    assert.deepEqual(samples[0]!.histograms, headHistograms(MODEL, stateAfter(engine, 32)));
  });

  it("follows a cure: retention falls by its part, and the norms of normalised states keep to their thresholds", () => {
    const reduced = curedEngine(engine, { kind: "reduced", retention: 0.97, insertion: 1 });
    const [last] = trace(reduced, 100, { logRetention: Math.log(0.97) });
    const size = MODEL.headDim * MODEL.dState;
    const kept = Math.exp(decayRates(engine)[2]! * 100 * last!.inputs![2]!.dt) * 0.97 ** 100;
    assert.ok(Math.abs(last!.inputs![2]!.retention / kept - 1) < 1e-4);
    const cure = { kind: "normalised", multiplier: 0.5, referenceTokens: 40, everyTokens: 8 } as const;
    const normalised = curedEngine(engine, cure, read);
    const threshold = headStatistics(MODEL, stateAfter(engine, 40)).map(({ rms }) => 0.5 * rms * Math.sqrt(size));
    const samples = trace(normalised, 16).filter(({ tokens }) => tokens % 8 === 0);
    for (const { heads: found } of samples)
      found.forEach(({ rms }, index) => assert.ok(rms * Math.sqrt(size) <= threshold[index]! * (1 + 1e-5)));
    // Passes that are cut by the rule have the moments of the whole.
    assert.ok(samples.every(({ inputs }) => inputs!.every(({ dt, x }) => dt > 0 && x > 0)));
    const [uncut] = trace(engine, 16);
    assert.ok(Math.abs(samples[0]!.inputs![0]!.dt - uncut!.inputs![0]!.dt) < 1e-6);
  });

  it("leaves out what entered where an engine cannot tell", async () => {
    const plain = await createEngine("tfjs", { model: { ...MODEL, groups: 1 }, precision: "f32", threads: 1 });
    const [sample] = traceStates(plain, read, { tokens: 20, everyTokens: 20 });
    plain.close();
    assert.equal(sample!.inputs, undefined);
    assert.equal(sample!.heads.length, 2 * heads);
  });
});
