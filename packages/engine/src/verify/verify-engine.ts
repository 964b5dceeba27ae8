import { setImmediate } from "node:timers/promises";
import { laneStateFloats, ssmStateFloats, stretches, type ParameterLayout } from "@segue/core";
import type { Engine, EngineDescription } from "../engine.js";
import type { GoldenValues } from "./golden.js";
import { relativeError } from "./relative-error.js";
import { gradientThroughSegments, runCase, type CaseResults } from "./run-case.js";
import type { VerifyCase } from "./verify-case.js";

/** Largest relative errors of float32: of losses, logits and states, and of gradients. */
export const VERIFY_LIMITS = { outputs: 1e-5, gradients: 1e-4 } as const;

export interface Measurement {
  /** The batch in one segment; cut into several with the states carried; cut, with the gradients flowing back through all of them. */
  readonly run: "whole" | "cut" | "through";
  /** "loss", "token losses", "last logits", "final SSM states", "final conv taps" or "gradient <parameter>". */
  readonly quantity: string;
  /** Values from the folder, or those of the float64 reference engine. */
  readonly against: "golden" | "reference";
  /** Relative L2; not a number where the engine's values are none. */
  readonly error: number;
  readonly limit: number;
  readonly pass: boolean;
}

export interface VerifyReport {
  readonly engine: EngineDescription;
  readonly parameters: number;
  readonly lanes: number;
  readonly tokens: number;
  /** Tokens per lane of the segments of the cut runs; the last may be shorter. */
  readonly segmentTokens: number;
  readonly passed: boolean;
  readonly measurements: readonly Measurement[];
}

/**
 * Runs a case on an engine and on the float64 reference, in one segment and in segments of `segmentTokens`. Losses, logits and states do
 * not depend on the cut. Gradients do where they end at a segment's start, so those are compared with the reference's over the same cut;
 * those that flow through all segments are the gradients of the whole. Overwrites the engine's parameters.
 * @throws the reason of `signal` once it aborts
 */
export async function verifyEngine(
  engine: Engine,
  verifyCase: VerifyCase,
  segmentTokens: number,
  signal?: AbortSignal,
): Promise<VerifyReport> {
  const { model, parameters, batch, golden } = verifyCase;
  const pause = async (): Promise<void> => {
    await setImmediate();
    signal?.throwIfAborted();
  };
  const runBoth = async (of: Engine): Promise<Record<"whole" | "cut", CaseResults>> => {
    for (const { floats, offset } of stretches(parameters)) of.writeParameters(floats, offset);
    const whole = await runCase(of, batch, batch.tokens, pause);
    return { whole, cut: await runCase(of, batch, segmentTokens, pause) };
  };
  const actual = await runBoth(engine);
  await pause();
  const throughSegments = gradientThroughSegments(engine, batch, segmentTokens);
  // Loaded when needed, as all engines: it brings the cpu engine's native library interface along.
  const { createReferenceEngine } = await import("../native/index.js");
  const reference = createReferenceEngine(model);
  const expected = await runBoth(reference);
  reference.close();

  const compare = comparer(engine.layout, laneStateFloats(model), ssmStateFloats(model));
  const whole = golden ? golden.gradient : expected.whole.gradient;
  const measurements = [
    ...(["whole", "cut"] as const).flatMap((run) => compare(run, actual[run], expected[run], golden)),
    ...gradientMeasurements(engine.layout, "through", throughSegments, whole, golden ? "golden" : "reference"),
  ];
  return {
    engine: engine.description,
    parameters: engine.layout.size,
    lanes: batch.lanes,
    tokens: batch.tokens,
    segmentTokens,
    passed: measurements.every(({ pass }) => pass),
    measurements,
  };
}

type Compare = (
  run: "whole" | "cut",
  actual: CaseResults,
  reference: CaseResults,
  golden: GoldenValues | undefined,
) => Measurement[];

function comparer(layout: ParameterLayout, laneFloats: number, ssmFloats: number): Compare {
  return (run, actual, reference, golden) => {
    const measure = (
      quantity: string,
      against: Measurement["against"],
      [values, expected]: readonly [ArrayLike<number>, ArrayLike<number>],
    ): Measurement => measurement({ run, quantity, against, limit: VERIFY_LIMITS.outputs }, values, expected);
    const outputs = golden ?? reference;
    const outputsFrom = golden ? "golden" : "reference";
    // Golden gradients are those of the whole batch.
    const goldenGradient = run === "whole" ? golden?.gradient : undefined;
    const gradient = goldenGradient ?? reference.gradient;
    const states = (first: number, end: number) =>
      [lanePart(actual.finalStates, laneFloats, first, end), lanePart(reference.finalStates, laneFloats, first, end)] as const;
    return [
      measure("loss", outputsFrom, [[actual.loss], [outputs.loss]]),
      measure("token losses", outputsFrom, [actual.losses_BT, outputs.losses_BT]),
      measure("last logits", outputsFrom, [actual.lastLogits_BV, outputs.lastLogits_BV]),
      measure("final SSM states", "reference", states(0, ssmFloats)),
      measure("final conv taps", "reference", states(ssmFloats, laneFloats)),
      ...gradientMeasurements(layout, run, actual.gradient, gradient, goldenGradient ? "golden" : "reference"),
    ];
  };
}

/** Of every parameter's gradient. */
function gradientMeasurements(
  { entries }: ParameterLayout,
  run: Measurement["run"],
  actual: Float32Array,
  expected: Float32Array,
  against: Measurement["against"],
): Measurement[] {
  return entries.map(({ name, offset, size }) => {
    const part = (flat: Float32Array): Float32Array => flat.subarray(offset, offset + size);
    const of = { run, quantity: `gradient ${name}`, against, limit: VERIFY_LIMITS.gradients };
    return measurement(of, part(actual), part(expected));
  });
}

function measurement(of: Omit<Measurement, "error" | "pass">, actual: ArrayLike<number>, expected: ArrayLike<number>): Measurement {
  const error = relativeError(actual, expected);
  const { run, quantity, against, limit } = of;
  return { run, quantity, against, error, limit, pass: error <= limit };
}

/** Floats [first, end) of every lane, one lane after the other. */
function lanePart(states: Float32Array, laneFloats: number, first: number, end: number): Float32Array {
  const lanes = states.length / laneFloats;
  const part = new Float32Array(lanes * (end - first));
  for (let lane = 0; lane < lanes; lane++) {
    part.set(states.subarray(lane * laneFloats + first, lane * laneFloats + end), lane * (end - first));
  }
  return part;
}
