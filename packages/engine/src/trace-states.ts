import {
  convStatistics,
  firstTokenRetention,
  headHistograms,
  headStatistics,
  laneStateFloats,
  modelWidths,
  type HeadInputs,
  type ModelSpec,
  type StateSample,
} from "@segue/core";
import type { InferenceEngine } from "./cures/state-rule.js";
import { decayRates } from "./decay-rates.js";
import type { LayerMoments } from "./engine.js";
import { newLayerMoments } from "./native/moments.js";

export interface TraceOptions {
  readonly tokens: number;
  /** Tokens between two samples. */
  readonly everyTokens: number;
  /** The first sample at or behind each of these has histograms. */
  readonly histogramTokens?: readonly number[] | undefined;
  /** What the engine's cure adds to the logarithm of every decay; default 0. */
  readonly logRetention?: number | undefined;
}

type TracedEngine = Omit<InferenceEngine, "score" | "forkStates" | "zeroStates">;

/**
 * Statistics of one lane's state along a text, from zero on: a sample after every `everyTokens` tokens and one at the end (paper.md section 1.3,
 * M2 to M5). With a cure of states the retention is that of the recurrence alone. What enters the recurrence is left out on engines without moments. The caller may stop between two samples.
 * @param read `count` tokens of the text from number `from` on
 */
export function* traceStates(
  engine: TracedEngine,
  read: (from: number, count: number) => Int32Array,
  { tokens, everyTokens, histogramTokens = [], logRetention = 0 }: TraceOptions,
): Generator<StateSample, void, undefined> {
  const { model } = engine;
  const lane = engine.createStates(1);
  const state_F = new Float32Array(laneStateFloats(model));
  const inputs = engine.headNorms ? new InputTrace(engine, logRetention) : undefined;
  try {
    for (let at = 0; at < tokens; at += everyTokens) {
      const count = Math.min(everyTokens, tokens - at);
      const end = at + count;
      engine.prefill({ lanes: 1, tokens: count, tokens_BT: read(at, count) }, lane, inputs);
      engine.readStates(lane, state_F);
      const isChosen = histogramTokens.some((place) => at < place && place <= end);
      yield {
        tokens: end,
        heads: headStatistics(model, state_F),
        conv: convStatistics(model, state_F),
        inputs: inputs?.sample(count),
        histograms: isChosen ? headHistograms(model, state_F) : undefined,
      };
    }
  } finally {
    engine.freeStates(lane);
  }
}

/** What enters the recurrence of one lane, and what is left of the beginning. */
class InputTrace {
  readonly moments: LayerMoments;
  readonly #model: ModelSpec;
  readonly #rates_LH: Float64Array;
  readonly #dtSums_LH: Float64Array;
  readonly #logRetention: number;
  #tokens = 0;

  constructor(engine: TracedEngine, logRetention: number) {
    this.#model = engine.model;
    this.moments = newLayerMoments(engine.model, 1);
    this.#rates_LH = decayRates(engine);
    this.#dtSums_LH = new Float64Array(this.#rates_LH.length);
    this.#logRetention = logRetention;
  }

  /** Takes the moments of a pass over `tokens` tokens. */
  sample(tokens: number): HeadInputs[] {
    this.#tokens += tokens;
    const { dt_BLH, x2_BLH, b2_BLG, c2_BLG } = this.moments;
    const { heads } = modelWidths(this.#model);
    const headsPerGroup = heads / this.#model.groups;
    return Array.from(this.#rates_LH, (rate, index) => {
      const dtSum = (this.#dtSums_LH[index]! += dt_BLH[index]!);
      const group = Math.floor(index / heads) * this.#model.groups + Math.floor((index % heads) / headsPerGroup);
      return {
        dt: dt_BLH[index]! / tokens,
        x: Math.sqrt(x2_BLH[index]! / tokens),
        b: Math.sqrt(b2_BLG[group]! / tokens),
        c: Math.sqrt(c2_BLG[group]! / tokens),
        retention: firstTokenRetention(rate, dtSum, this.#tokens, this.#logRetention),
      };
    });
  }
}
