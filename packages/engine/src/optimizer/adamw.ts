import type { ParameterLayout } from "@segue/core";
import type { AdamWStep } from "../engine.js";

/** What AdamW changes: flat vectors in the order of the layout. */
export interface AdamWVectors {
  readonly parameters: Float32Array;
  readonly first: Float32Array;
  readonly second: Float32Array;
}

/**
 * One AdamW step (decoupled weight decay, on tensors of two and more dimensions only) after clipping by the global norm. Elements are
 * taken in order and computed in float64, stored in float32: the same bits everywhere. A step in which nothing has weight counts as
 * a zero gradient.
 * @returns the norm of the mean gradient before clipping
 */
export function applyAdamW(vectors: AdamWVectors, gradientSum: Float32Array, layout: ParameterLayout, step: AdamWStep): number {
  const { parameters, first, second } = vectors;
  const { beta1, beta2, epsilon, weightDecay, clipNorm } = step.optimizer;
  const perWeight = step.totalWeight > 0 ? 1 / step.totalWeight : 0;
  const norm = globalNorm(gradientSum) * perWeight;
  const scale = clipNorm > 0 && norm > clipNorm ? (perWeight * clipNorm) / norm : perWeight;
  const firstCorrection = 1 - integerPower(beta1, step.step);
  const secondCorrection = 1 - integerPower(beta2, step.step);
  for (const { offset, size, decay } of layout.entries) {
    const keep = decay ? 1 - step.learningRate * weightDecay : 1;
    for (let i = offset; i < offset + size; i++) {
      const gradient = (gradientSum[i] as number) * scale;
      const m = beta1 * (first[i] as number) + (1 - beta1) * gradient;
      const v = beta2 * (second[i] as number) + (1 - beta2) * gradient * gradient;
      first[i] = m;
      second[i] = v;
      const update = m / firstCorrection / (Math.sqrt(v / secondCorrection) + epsilon);
      parameters[i] = (parameters[i] as number) * keep - step.learningRate * update;
    }
  }
  return norm;
}

/** Euclidean norm, summed in order in float64. */
export function globalNorm(values: Float32Array): number {
  let sum = 0;
  for (const value of values) sum += value * value;
  return Math.sqrt(sum);
}

/** By squaring: unlike `Math.pow` it has the same last bit in every JavaScript engine. */
function integerPower(base: number, exponent: number): number {
  let result = 1;
  for (let square = base, left = exponent; left > 0; left = Math.floor(left / 2), square *= square) {
    if (left % 2 === 1) result *= square;
  }
  return result;
}
