import type { OuterStepArgs } from "../device.js";

/** Of 64 bits each in the reference; of 32, what is kept is rounded once. */
type F = Float32Array | Float64Array;

export function subtract(from: F, subtrahend: F, out: F): void {
  for (let i = 0; i < out.length; i++) out[i] = from[i]! - subtrahend[i]!;
}

export function divide(from: F, divisor: number, out: F): void {
  for (let i = 0; i < out.length; i++) out[i] = from[i]! / divisor;
}

/** Nesterov SGD on the mean change of the replicas (docs/design/sync.md). */
export function outerStep({ changes, replicas, learningRate, momentum, start, velocity, parameters }: OuterStepArgs<F>): void {
  // The mean is kept for a moment, and with that rounded.
  divide(changes, replicas, parameters);
  for (let i = 0; i < parameters.length; i++) {
    const change = parameters[i]!;
    velocity[i] = momentum * velocity[i]! + change;
    parameters[i] = start[i]! - learningRate * (change + momentum * velocity[i]!);
  }
}
