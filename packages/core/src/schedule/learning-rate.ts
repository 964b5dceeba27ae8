import type { OptimizerSpec, ScheduleSpec } from "../spec/job-spec.js";

/**
 * The learning rate of a step under the warm-up, stable, decay schedule (paper.md 3.3): linear warm-up that reaches the full rate at
 * step `warmupSteps - 1`, constant, then a decay that reaches `finalRatio` of it at the last step. Steps are 0-based.
 * Arithmetic only, so that workers on different Node versions agree to the bit.
 */
export function learningRateAt(
  step: number,
  totalSteps: number,
  optimizer: Pick<OptimizerSpec, "learningRate">,
  schedule: ScheduleSpec,
): number {
  const { warmupSteps, decaySteps, decay, finalRatio } = schedule;
  const peak = optimizer.learningRate;
  if (step < warmupSteps) return (peak * (step + 1)) / warmupSteps;
  const decayed = step + 1 - (totalSteps - decaySteps);
  if (decayed <= 0) return peak;
  const progress = Math.min(1, decayed / decaySteps);
  switch (decay) {
    case "linear":
      return peak * (1 - (1 - finalRatio) * progress);
    case "cosine":
      return peak * (finalRatio + (1 - finalRatio) * ((1 + cosinePi(progress)) / 2));
    case "exponential":
      return peak * power(finalRatio, progress);
  }
}

/** cos(pi x) for x in [0, 1], by its series on the quarter turn. */
function cosinePi(x: number): number {
  if (x > 0.5) return -cosinePi(1 - x);
  const angleSquared = (Math.PI * x) ** 2;
  let sum = 1;
  for (let k = 26; k >= 2; k -= 2) sum = 1 - (sum * angleSquared) / (k * (k - 1));
  return sum;
}

/** base^x for x in [0, 1]: the product of the square roots base^(1/2), base^(1/4), ... that x's binary digits select. */
function power(base: number, x: number): number {
  if (x === 1) return base;
  let result = 1;
  let root = base;
  let rest = x;
  for (let digit = 0; digit < 53; digit++) {
    root = Math.sqrt(root);
    rest *= 2;
    if (rest >= 1) {
      result *= root;
      rest -= 1;
    }
  }
  return result;
}
