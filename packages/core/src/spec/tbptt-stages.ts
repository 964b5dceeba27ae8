import type { TbpttSpec, TbpttStage } from "./job-spec.js";

/** Settings of which a curriculum may change some from a step on. */
type Staged = Omit<TbpttStage, "fromStep"> & Pick<TbpttSpec, "curriculum">;

/** The settings from `fromStep` on until the next stage, as if there were no curriculum. */
export type ResolvedStage<T> = T & { readonly fromStep: number };

/** The stages of training in order, the first from step 0 on. What a stage does not give stays as it was before. */
export function tbpttStages<T extends Staged>(tbptt: T): [ResolvedStage<T>, ...ResolvedStage<T>[]] {
  const stages: [ResolvedStage<T>, ...ResolvedStage<T>[]] = [{ ...tbptt, curriculum: [], fromStep: 0 }];
  for (const { fromStep, ...given } of tbptt.curriculum) {
    const changes = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
    stages.push({ ...(stages.at(-1) ?? stages[0]), ...changes, fromStep });
  }
  return stages;
}

/** The settings of one step (0-based), as if they had always been these. */
export function tbpttAt<T extends Staged>(tbptt: T, step: number): T {
  const stages = tbpttStages(tbptt);
  return stages.findLast(({ fromStep }) => fromStep <= step) ?? stages[0];
}

/** The first step after `step` at which another stage begins; Infinity when there is none. */
export function stageEnd({ curriculum }: Staged, step: number): number {
  return curriculum.find(({ fromStep }) => fromStep > step)?.fromStep ?? Infinity;
}

/** The training length: tokens of the longest chain, or of the longest segment where chains have no end or nothing is carried. */
export function trainingLength(tbptt: TbpttSpec): number {
  const chained = (segments: number): number => (tbptt.carrySsm ? Math.max(1, segments) : 1);
  return Math.max(...tbpttStages(tbptt).map(({ segmentTokens, segmentsPerChain }) => chained(segmentsPerChain) * segmentTokens));
}
