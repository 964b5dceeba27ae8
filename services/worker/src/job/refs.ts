import type { ReductionNode } from "@segue/core";

/** Names of the tensors workers pull from each other (docs/design/cluster-protocol.md). */
export const refs = {
  job: (jobId: string): string => `job/${jobId}/`,
  generations: (jobId: string): string => `job/${jobId}/gen/`,
  /** `step` may be "{n}", for a series over the steps. */
  node: (jobId: string, generation: number, step: number | "{n}", { lo, hi }: ReductionNode): string =>
    `job/${jobId}/gen/${generation}/step/${step}/node/${lo}-${hi}`,
  sum: (jobId: string, generation: number, step: number | "{n}", member: number): string =>
    `job/${jobId}/gen/${generation}/step/${step}/sum/${member}`,
  exchangeOffer: (jobId: string, generation: number, member: number): string => `job/${jobId}/gen/${generation}/offer/${member}`,
  snapshot: (jobId: string, step: number): string => `job/${jobId}/snapshot/${step}/`,
  model: (jobId: string, step: number): string => `job/${jobId}/snapshot/${step}/model`,
  moments: (jobId: string, step: number, { begin, end }: { readonly begin: number; readonly end: number }): string =>
    `job/${jobId}/snapshot/${step}/moments/${begin}-${end}`,
  states: (jobId: string, step: number, shard: number): string => `job/${jobId}/snapshot/${step}/states/${shard}`,
};
