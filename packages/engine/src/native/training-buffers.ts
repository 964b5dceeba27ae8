import type { ModelSpec } from "@segue/core";
import type { Device } from "../devices/device.js";
import { arenaFloats } from "./arena.js";
import { takeBackward, takeForward, type BackwardBuffers, type ForwardBuffers, type Keeping, type Take } from "./buffers.js";
import { takeChain, type ChainBuffers } from "./tbptt.js";

export interface TrainingBuffers<F> {
  /** Of gradients that flow through several segments. */
  readonly chain: ChainBuffers<F> | undefined;
  readonly forward: ForwardBuffers<F>;
  readonly backward: BackwardBuffers<F>;
}

export interface TrainingShape {
  readonly model: ModelSpec;
  readonly lanes: number;
  /** Per lane and segment. */
  readonly tokens: number;
  /** Segments that gradients flow through. */
  readonly chained: number;
}

/** The chain's buffers come first: a last segment that is shorter finds them where the others left them. */
export const carveTraining = <F>(shape: TrainingShape, take: Take<F>, keeping: Keeping): TrainingBuffers<F> => {
  const { model, lanes, tokens, chained } = shape;
  const chain = chained > 1 ? takeChain(model, lanes, chained, take) : undefined;
  const forward = takeForward(model, lanes, tokens, true, take, keeping);
  return { chain, forward, backward: takeBackward(model, lanes, tokens, forward, take, keeping) };
};

/**
 * Floats of the arena that one training step over segments of `tokens` tokens a lane needs, beside parameters, gradient, moments and
 * states.
 * @param chained segments that gradients flow through
 * @param device absent: one that keeps everything in float32
 */
export function trainingArenaFloats(
  model: ModelSpec,
  lanes: number,
  tokens: number,
  chained = 1,
  device: Pick<Device<never, never>, "bufferFloats"> & Keeping = {},
): number {
  return arenaFloats((take) => carveTraining({ model, lanes, tokens, chained }, take, device), device);
}
