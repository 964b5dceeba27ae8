import { ssmStateFloats } from "../model/sizes.js";
import { fillNormal } from "../normal-numbers.js";
import { randomStream } from "../random.js";
import type { ModelSpec, TbpttSpec } from "../spec/job-spec.js";
import { headStatistics } from "./head-statistics.js";

/** How the state of a lane begins where it is dropped before a step; a function of these, the lane and its dropped state. */
export interface InitialStateRule {
  readonly kind: Exclude<TbpttSpec["initialState"], "zero">;
  /** Standard deviation of `noise`. */
  readonly std: number;
  readonly seed: number;
  /** 0-based. */
  readonly step: number;
}

/**
 * Replaces a lane's dropped state by the one its next chain begins with (paper.md section 8.5). `noise`: independent normal numbers of
 * mean 0 and one standard deviation for all layers and heads. `fittedNoise`: of the mean and standard deviation that the head's entries
 * have in the dropped state; what is still zero stays zero. The convolution taps become zero.
 * @param lane its number among all lanes of the job
 * @param state_F one lane's state: ssm [layers, heads, headDim, dState], then the convolution taps
 */
export function drawInitialState(model: ModelSpec, rule: InitialStateRule, lane: number, state_F: Float32Array): void {
  const random = randomStream(rule.seed, "initial-state", lane, rule.step);
  const ssmFloats = ssmStateFloats(model);
  state_F.fill(0, ssmFloats);
  if (rule.kind === "noise") {
    fillNormal(random, state_F.subarray(0, ssmFloats), 0, rule.std);
    return;
  }
  const size = model.headDim * model.dState;
  for (const [index, { mean, variance }] of headStatistics(model, state_F).entries()) {
    fillNormal(random, state_F.subarray(index * size, (index + 1) * size), mean, Math.sqrt(variance));
  }
}
