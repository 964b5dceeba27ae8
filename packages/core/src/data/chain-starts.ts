import { randomStream } from "../random.js";
import type { TbpttSpec } from "../spec/job-spec.js";

export interface ChainStarts {
  /** The segments of the step, 0-based, before which the state is dropped. */
  readonly segments: readonly number[];
  /** Segments of the running chain after the step. */
  readonly segmentsInChain: number;
}

/**
 * Where a lane's chains begin within one step: when the one before is over, when its state is dropped (`tbptt.stateDropProbability`, a
 * function of seed, lane, step and segment), and at the lane's very first segment if that starts from anything but zero.
 */
export function chainStarts(
  tbptt: Pick<TbpttSpec, "segmentsPerStep" | "segmentsPerChain" | "stateDropProbability" | "initialState">,
  at: { readonly seed: number; readonly lane: number; readonly step: number; readonly segmentsInChain: number },
): ChainStarts {
  const { segmentsPerStep, segmentsPerChain, stateDropProbability, initialState } = tbptt;
  const segments: number[] = [];
  let running = at.segmentsInChain;
  for (let segment = 0; segment < segmentsPerStep; segment++) {
    const isFirst = running === 0 && initialState !== "zero";
    const isOver = segmentsPerChain > 0 && running >= segmentsPerChain;
    const isDropped =
      stateDropProbability > 0 && randomStream(at.seed, "state-drop", at.lane, at.step, segment).uniform() < stateDropProbability;
    if (isFirst || isOver || isDropped) {
      segments.push(segment);
      running = 0;
    }
    running++;
  }
  return { segments, segmentsInChain: running };
}
