import { laneStateFloats } from "@segue/core";
import type { Engine, SegmentBatch } from "../engine.js";
import { cutIntoSegments } from "../segments.js";

/** What an engine computes for a batch that it gets in one or several segments, the states carried from each to the next. */
export interface CaseResults {
  /** Weighted mean cross-entropy. */
  readonly loss: number;
  /** Cross-entropy of every label, [lanes, tokens]. */
  readonly losses_BT: Float32Array;
  /** [lanes, vocab] */
  readonly lastLogits_BV: Float32Array;
  /** [lanes, laneStateFloats] */
  readonly finalStates: Float32Array;
  /** Of the weighted mean, flat; no gradient flows from a segment into the one before. */
  readonly gradient: Float32Array;
}

/**
 * Trains, scores and prefills the batch in segments of `segmentTokens`, each time from zero states.
 * @param pause awaited before every call of the engine, so that a caller can stop in between by throwing
 */
export async function runCase(
  engine: Engine,
  batch: SegmentBatch,
  segmentTokens: number,
  pause: () => Promise<void>,
): Promise<CaseResults> {
  const { lanes, tokens } = batch;
  const [training, scoring, filling] = [engine.createStates(lanes), engine.createStates(lanes), engine.createStates(lanes)];
  try {
    const gradient = new Float32Array(engine.layout.size);
    const ofSegment = new Float32Array(engine.layout.size);
    const losses_BT = new Float32Array(lanes * tokens);
    let lastLogits_BV = new Float32Array(0);
    let lossSum = 0;
    let start = 0;
    for (const segment of cutIntoSegments(batch, segmentTokens)) {
      await pause();
      lossSum += engine.forwardBackward(segment, training, ofSegment);
      for (let i = 0; i < gradient.length; i++) gradient[i] = (gradient[i] as number) + (ofSegment[i] as number);
      await pause();
      const scores = engine.score(segment, scoring);
      for (let lane = 0; lane < lanes; lane++) {
        losses_BT.set(scores.subarray(lane * segment.tokens, (lane + 1) * segment.tokens), lane * tokens + start);
      }
      await pause();
      lastLogits_BV = Float32Array.from(engine.prefill(segment, filling));
      start += segment.tokens;
    }
    const mean = meanFactor(batch);
    scale(gradient, mean);
    const finalStates = new Float32Array(lanes * laneStateFloats(engine.model));
    engine.readStates(training, finalStates);
    return { loss: lossSum * mean, losses_BT, lastLogits_BV, finalStates, gradient };
  } finally {
    for (const states of [training, scoring, filling]) engine.freeStates(states);
  }
}

/** Gradient of the weighted mean, flat, flowing through segments of `segmentTokens` as through one: that of the whole batch. */
export function gradientThroughSegments(engine: Engine, batch: SegmentBatch, segmentTokens: number): Float32Array {
  const states = engine.createStates(batch.lanes);
  try {
    const gradient = new Float32Array(engine.layout.size);
    engine.forwardBackward(batch, states, gradient, { segmentTokens, gradient: "full", carrySsm: true, carryConv: true });
    scale(gradient, meanFactor(batch));
    return gradient;
  } finally {
    engine.freeStates(states);
  }
}

function meanFactor({ weights_BT, lanes, tokens }: SegmentBatch): number {
  const totalWeight = weights_BT ? weights_BT.reduce((sum, weight) => sum + weight, 0) : lanes * tokens;
  return totalWeight > 0 ? 1 / totalWeight : 0;
}

function scale(floats: Float32Array, factor: number): void {
  for (let i = 0; i < floats.length; i++) floats[i] = (floats[i] as number) * factor;
}
