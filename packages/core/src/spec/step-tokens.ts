import type { BatchSpec, TbpttSpec } from "./job-spec.js";

type Segments = Pick<TbpttSpec, "segmentTokens" | "segmentsPerStep">;

/** Tokens of one lane that one optimizer step consumes. */
export function laneTokensPerStep({ segmentTokens, segmentsPerStep }: Segments): number {
  return segmentTokens * segmentsPerStep;
}

/** Tokens of all lanes that one optimizer step consumes. */
export function tokensPerStep({ batch, tbptt }: { readonly batch: BatchSpec; readonly tbptt: Segments }): number {
  return batch.shards * batch.lanesPerShard * laneTokensPerStep(tbptt);
}
