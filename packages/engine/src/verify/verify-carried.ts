import { setImmediate } from "node:timers/promises";
import { laneStateFloats, ssmStateFloats } from "@segue/core";
import type { Engine } from "../engine.js";
import { segmentOf } from "../segments.js";
import type { CarriedCase } from "./carried-case.js";
import { relativeError } from "./relative-error.js";
import { VERIFY_LIMITS } from "./verify-engine.js";

export interface CarriedMeasurement {
  readonly case: number;
  /** "token losses", "SSM states after segment <n>", "conv taps after segment <n>", "gradient <parameter>", "full gradient <parameter>". */
  readonly quantity: string;
  /** Relative L2; not a number where the engine's values are none. */
  readonly error: number;
  readonly limit: number;
  readonly pass: boolean;
}

/**
 * Runs every case segment by segment, from its initial states, and once whole for the gradients that flow through all segments.
 * Uses the parameters that the engine has.
 * @throws the reason of `signal` once it aborts
 */
export async function verifyCarried(
  engine: Engine,
  cases: readonly CarriedCase[],
  signal?: AbortSignal,
): Promise<CarriedMeasurement[]> {
  const measurements: CarriedMeasurement[] = [];
  for (const [index, carriedCase] of cases.entries()) {
    await setImmediate();
    signal?.throwIfAborted();
    measurements.push(...measureCase(engine, carriedCase, index));
  }
  return measurements;
}

function measureCase(engine: Engine, { batch, segments, initialStates, golden }: CarriedCase, index: number): CarriedMeasurement[] {
  const { lanes, tokens } = batch;
  const { size, entries } = engine.layout;
  const measurements: CarriedMeasurement[] = [];
  const measure = (quantity: string, actual: Float32Array, expected: Float32Array, limit: number): void => {
    const error = relativeError(actual, expected);
    measurements.push({ case: index, quantity, error, limit, pass: error <= limit });
  };
  const measureGradient = (kind: string, actual: Float32Array, expected: Float32Array): void => {
    for (const { name, offset, size: length } of entries) {
      const part = (flat: Float32Array): Float32Array => flat.subarray(offset, offset + length);
      measure(`${kind} ${name}`, part(actual), part(expected), VERIFY_LIMITS.gradients);
    }
  };
  const mean = 1 / (batch.weights_BT ?? new Float32Array(lanes * tokens).fill(1)).reduce((sum, weight) => sum + weight, 0);
  const [training, scoring, whole] = [engine.createStates(lanes), engine.createStates(lanes), engine.createStates(lanes)];
  try {
    for (const states of [training, scoring, whole]) engine.writeStates(states, initialStates);
    const gradient = new Float32Array(size);
    const ofSegment = new Float32Array(size);
    const losses_BT = new Float32Array(lanes * tokens);
    let start = 0;
    for (const [segment, length] of segments.entries()) {
      if (length > 0) {
        const part = segmentOf(batch, start, length);
        engine.forwardBackward(part, training, ofSegment);
        for (let i = 0; i < size; i++) gradient[i]! += ofSegment[i]! * mean;
        const scores = engine.score(part, scoring);
        for (let lane = 0; lane < lanes; lane++) {
          losses_BT.set(scores.subarray(lane * length, (lane + 1) * length), lane * tokens + start);
        }
        start += length;
      }
      measureStates(segment);
    }
    measure("token losses", losses_BT, golden.losses_BT, VERIFY_LIMITS.outputs);
    measureGradient("gradient", gradient, golden.gradient);
    engine.forwardBackward(batch, whole, ofSegment);
    const fullGradient = ofSegment.map((value) => value * mean);
    measureGradient("full gradient", fullGradient, golden.fullGradient);
  } finally {
    for (const states of [training, scoring, whole]) engine.freeStates(states);
  }
  return measurements;

  function measureStates(segment: number): void {
    const [all, ssm] = [laneStateFloats(engine.model), ssmStateFloats(engine.model)];
    const actual = new Float32Array(lanes * all);
    engine.readStates(training, actual);
    const expected = golden.states[segment]!;
    const part = (states: Float32Array, isSsm: boolean): Float32Array => states.filter((_, at) => at % all < ssm === isSsm);
    measure(`SSM states after segment ${segment}`, part(actual, true), part(expected, true), VERIFY_LIMITS.outputs);
    measure(`conv taps after segment ${segment}`, part(actual, false), part(expected, false), VERIFY_LIMITS.outputs);
  }
}
