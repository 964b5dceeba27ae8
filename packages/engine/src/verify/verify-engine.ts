import { setImmediate } from "node:timers/promises";
import { laneStateFloats, ssmStateFloats, type ParameterLayout } from "@segue/core";
import type { Engine, EngineDescription } from "../engine.js";
import type { GoldenValues } from "./golden.js";
import { relativeError } from "./relative-error.js";
import { runCase, type CaseResults } from "./run-case.js";
import type { VerifyCase } from "./verify-case.js";

/** Largest relative errors of float32: of losses, logits and states, and of gradients. */
export const VERIFY_LIMITS = { outputs: 1e-5, gradients: 1e-4 } as const;

export interface Measurement {
  /** The batch in one segment, or cut into several with the states carried. */
  readonly run: "whole" | "cut";
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
  /** Tokens per lane of the segments of the cut run; the last may be shorter. */
  readonly segmentTokens: number;
  readonly passed: boolean;
  readonly measurements: readonly Measurement[];
}

/**
 * Runs a case on an engine and on the float64 reference, in one segment and in segments of `segmentTokens`. Losses, logits and states do not depend on
 * the cut; gradients do, as they end at a segment's start, so those of the cut are compared with the reference's over the same cut.
 * Overwrites the engine's parameters.
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
    of.writeParameters(parameters);
    const whole = await runCase(of, batch, batch.tokens, pause);
    return { whole, cut: await runCase(of, batch, segmentTokens, pause) };
  };
  const actual = await runBoth(engine);
  // Loaded when needed, as all engines: it brings the cpu engine's native library interface along.
  const { createReferenceEngine } = await import("../native/index.js");
  const reference = createReferenceEngine(model);
  const expected = await runBoth(reference);
  reference.close();

  const compare = comparer(engine.layout, laneStateFloats(model), ssmStateFloats(model));
  const measurements = (["whole", "cut"] as const).flatMap((run) => compare(run, actual[run], expected[run], golden));
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
  run: Measurement["run"],
  actual: CaseResults,
  reference: CaseResults,
  golden: GoldenValues | undefined,
) => Measurement[];

function comparer({ entries }: ParameterLayout, laneFloats: number, ssmFloats: number): Compare {
  return (run, actual, reference, golden) => {
    const measure = (
      quantity: string,
      against: Measurement["against"],
      [values, expected]: readonly [ArrayLike<number>, ArrayLike<number>],
      limit: number = VERIFY_LIMITS.outputs,
    ): Measurement => {
      const error = relativeError(values, expected);
      return { run, quantity, against, error, limit, pass: error <= limit };
    };
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
      ...entries.map(({ name, offset, size }) => {
        const part = (flat: Float32Array): Float32Array => flat.subarray(offset, offset + size);
        const from = goldenGradient ? "golden" : "reference";
        return measure(`gradient ${name}`, from, [part(actual.gradient), part(gradient)], VERIFY_LIMITS.gradients);
      }),
    ];
  };
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
