import type { OptimizerSpec, ScheduleSpec } from "../spec/job-spec.js";

type Lengths = Pick<ScheduleSpec, "warmupSteps" | "decaySteps">;

/**
 * The learning rate of a step under the warm-up, stable, decay schedule (paper.md 3.3). Steps are 0-based, `totalSteps` is how many there
 * are: `train.steps`, or fewer when the documents end before. Linear warm-up that reaches the full rate at step `warmupSteps - 1`,
 * constant, then a decay over the last `decaySteps` steps, at whose k-th (1-based) it is k / (decaySteps + 1) of the way from the full
 * rate to `finalRatio` of it: the step after the last one would be there, and no step is dead. Where both do not fit, see
 * {@link fittedSchedule}. Arithmetic only, so that different Node versions agree to the bit.
 */
export function learningRateAt(
  step: number,
  totalSteps: number,
  optimizer: Pick<OptimizerSpec, "learningRate">,
  schedule: ScheduleSpec,
): number {
  const { decay, finalRatio, decayFrom, revision } = schedule;
  const { warmupSteps, decaySteps } = fittedSchedule(schedule, totalSteps);
  const peak = optimizer.learningRate;
  if (decayFrom && step >= decayFrom.step) {
    const { step: first, learningRate } = decayFrom;
    const ratio = learningRate > 0 ? (peak * finalRatio) / learningRate : 0;
    return learningRate * decayed(decay, ratio, (step - first) / (totalSteps - first));
  }
  if (step < warmupSteps) return (peak * (step + 1)) / warmupSteps;
  const decaying = step + 1 - (totalSteps - decaySteps);
  if (decaying <= 0) return peak;
  return peak * decayed(decay, finalRatio, decaying / (revision === 1 ? decaySteps : decaySteps + 1));
}

/** Warm-up and decay as they are, or both shortened in proportion where `totalSteps` are too few for them. */
export function fittedSchedule({ warmupSteps, decaySteps }: Lengths, totalSteps: number): Lengths {
  const wanted = warmupSteps + decaySteps;
  if (wanted <= totalSteps) return { warmupSteps, decaySteps };
  const decay = Math.round((decaySteps * totalSteps) / wanted);
  return { warmupSteps: totalSteps - decay, decaySteps: decay };
}

/** What is left of a rate at `progress`, from 0 on, of its way to `ratio` of it, where it stays. */
function decayed(decay: ScheduleSpec["decay"], ratio: number, progress: number): number {
  const x = Math.min(1, progress);
  switch (decay) {
    case "linear":
      return 1 - (1 - ratio) * x;
    case "cosine":
      return ratio + (1 - ratio) * ((1 + cosinePi(x)) / 2);
    case "exponential":
      return power(ratio, x);
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
