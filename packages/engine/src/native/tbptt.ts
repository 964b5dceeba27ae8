import { laneStateFloats, ssmStateFloats, type ModelSpec } from "@segue/core";
import type { Device } from "../devices/device.js";
import type { SegmentRules } from "../engine.js";
import type { Take } from "./buffers.js";
import type { StateGradients } from "./mamba2.js";

/** The passes of a model over the consecutive segments of one optimizer step; `states` as in {@link forward}. */
export interface SegmentPasses<F> {
  readonly count: number;
  /** Advances the states over segment `index`. */
  forward(index: number, states: F): void;
  /** Adds the gradients of segment `index`, the one that `forward` went over last. */
  backward(index: number, stateGradients?: StateGradients<F>): void;
}

/** What full back-propagation holds beside the buffers of one segment. */
export interface ChainBuffers<F> {
  /** The states that each segment but the last started from. */
  readonly starts: readonly F[];
  readonly stateGradient: F;
}

/** @param segments of one step */
export function takeChain<F>(model: ModelSpec, lanes: number, segments: number, take: Take<F>): ChainBuffers<F> {
  const states = (): F => take(lanes * laneStateFloats(model));
  return { starts: Array.from({ length: segments - 1 }, states), stateGradient: states() };
}

/** Gradients stop at each segment's start. `startSegment` prepares the states for the next segment. */
export function truncatedPasses<F>(passes: SegmentPasses<F>, states: F, startSegment: (states: F) => void): void {
  for (let index = 0; index < passes.count; index++) {
    startSegment(states);
    passes.forward(index, states);
    passes.backward(index);
  }
}

/**
 * Gradients flow back to the start of the first segment. The way back computes each segment's forward pass again from the states it
 * started from, which gives the same bits, so that the activations of one segment at a time are held.
 * @param carried what is not carried from segment to segment stops its gradients, too
 */
export function fullPasses<F>(
  device: Device<F, unknown>,
  passes: SegmentPasses<F>,
  states: F,
  startSegment: (states: F) => void,
  carried: Pick<SegmentRules, "carrySsm" | "carryConv">,
  { starts, stateGradient }: ChainBuffers<F>,
): void {
  const last = passes.count - 1;
  for (let index = 0; index < last; index++) {
    startSegment(states);
    device.copy(states, starts[index]!);
    passes.forward(index, states);
  }
  startSegment(states);
  passes.forward(last, states);
  const stateGradients: StateGradients<F> = {
    ssm: carried.carrySsm ? stateGradient : undefined,
    taps: carried.carryConv ? stateGradient : undefined,
  };
  // Nobody sees the final states.
  device.fill(stateGradient, 0);
  passes.backward(last, stateGradients);
  for (let index = last - 1; index >= 0; index--) {
    passes.forward(index, starts[index]!);
    passes.backward(index, stateGradients);
  }
}

/** Zeroes the SSM part or the convolution taps of every lane. */
export function zeroStatePart<F>(
  device: Device<F, unknown>,
  model: ModelSpec,
  states: F,
  lanes: number,
  part: "ssm" | "conv",
): void {
  const laneFloats = laneStateFloats(model);
  const ssmFloats = ssmStateFloats(model);
  const [first, length] = part === "ssm" ? [0, ssmFloats] : [ssmFloats, laneFloats - ssmFloats];
  for (let lane = 0; lane < lanes; lane++) device.fill(device.slice(states, lane * laneFloats + first, length), 0);
}
