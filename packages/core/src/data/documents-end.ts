import type { BatchSpec, DataSpec, TbpttSpec } from "../spec/job-spec.js";
import { laneTokensPerStep } from "../spec/step-tokens.js";
import { stageEnd, tbpttAt } from "../spec/tbptt-stages.js";
import { shuffledDocument } from "./document-order.js";

export interface DocumentsEndOptions {
  /** Tokens of each document of the source, without end token. */
  readonly lengths: ArrayLike<number>;
  readonly seed: number;
  readonly data: Pick<DataSpec, "minDocumentTokens" | "epochs" | "shuffle">;
  readonly tbptt: Pick<TbpttSpec, "segmentTokens" | "segmentsPerStep" | "resetAtDocumentEnd" | "sequence" | "curriculum">;
  readonly batch: BatchSpec;
}

/**
 * The steps that {@link SegmentCutter} cuts of these documents before they end, at most `mostSteps`, from their lengths alone: tapes take
 * documents in the same order, and the last step is the last that has a label. Takes time for each document and each lane of each step,
 * not for tokens.
 */
export function stepsOfDocuments(options: DocumentsEndOptions, mostSteps: number): number {
  const { tbptt, batch } = options;
  const lanes = batch.shards * batch.lanesPerShard;
  const firstIsNoLabel = tbptt.resetAtDocumentEnd || tbptt.sequence !== "contiguous";
  const take = documentLengths(options);
  /** Tokens of the tape's document that are not read yet, its end token among them. */
  const left = new Float64Array(lanes);
  /** 1: the tape's last token was a label and is still to be an input. */
  const carried = new Uint8Array(lanes);
  let laneTokens = 0;
  let changesAt = 0;
  for (let step = 0; step < mostSteps; step++) {
    if (step >= changesAt) {
      laneTokens = laneTokensPerStep(tbpttAt(tbptt, step));
      changesAt = stageEnd(tbptt, step);
    }
    let labels = 0;
    for (let lane = 0; lane < lanes; lane++) {
      let at = carried[lane] ?? 0;
      while (at <= laneTokens) {
        let rest = left[lane] ?? 0;
        if (rest === 0) {
          const tokens = take();
          if (tokens === undefined) break;
          rest = tokens + 1;
          if (firstIsNoLabel && at > 0) labels--;
        }
        const read = Math.min(rest, laneTokens + 1 - at);
        left[lane] = rest - read;
        at += read;
      }
      // The strip's first token is no label.
      labels += Math.max(0, at - 1);
      carried[lane] = at > laneTokens ? 1 : 0;
    }
    if (labels === 0) return step;
  }
  return mostSteps;
}

/** The lengths of the documents that {@link DocumentTaker} takes, one after the other; undefined at the end. */
function documentLengths({ lengths, seed, data }: DocumentsEndOptions): () => number | undefined {
  const { length: count } = lengths;
  const least = Math.max(1, data.minDocumentTokens);
  let epoch = 0;
  let taken = 0;
  let droppedInARow = 0;
  return () => {
    while (droppedInARow < 2 * count) {
      if (taken >= count) {
        if (data.epochs > 0 && epoch + 1 >= data.epochs) break;
        epoch++;
        taken = 0;
      }
      const position = taken++;
      const tokens = lengths[data.shuffle ? shuffledDocument(position, count, seed, epoch) : position] ?? 0;
      if (tokens >= least) {
        droppedInARow = 0;
        return tokens;
      }
      droppedInARow++;
    }
    return undefined;
  };
}
