import { SegueError } from "@segue/core";
import type { SegmentBatch } from "./engine.js";

/** Columns [start, start + tokens) of every lane. */
export function segmentOf(batch: SegmentBatch, start: number, tokens: number): SegmentBatch {
  const cut = <A extends Int32Array | Float32Array | Uint8Array>(whole_BT: A): A => {
    const part_BT = whole_BT.slice(0, batch.lanes * tokens) as A;
    for (let lane = 0; lane < batch.lanes; lane++) {
      const first = lane * batch.tokens + start;
      part_BT.set(whole_BT.subarray(first, first + tokens), lane * tokens);
    }
    return part_BT;
  };
  return {
    lanes: batch.lanes,
    tokens,
    tokens_BT: cut(batch.tokens_BT),
    labels_BT: cut(batch.labels_BT),
    weights_BT: batch.weights_BT && cut(batch.weights_BT),
    resets_BT: batch.resets_BT && cut(batch.resets_BT),
  };
}

/**
 * Consecutive segments of `segmentTokens` tokens a lane; the last may be shorter.
 * @throws SegueError ENGINE_INPUT_INVALID
 */
export function cutIntoSegments(batch: SegmentBatch, segmentTokens: number): SegmentBatch[] {
  if (!(segmentTokens >= 1)) throw new SegueError("ENGINE_INPUT_INVALID", `a segment of ${segmentTokens} tokens`);
  if (segmentTokens >= batch.tokens) return [batch];
  return Array.from({ length: Math.ceil(batch.tokens / segmentTokens) }, (_, index) => {
    const start = index * segmentTokens;
    return segmentOf(batch, start, Math.min(segmentTokens, batch.tokens - start));
  });
}
