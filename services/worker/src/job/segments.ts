import { laneTokensPerStep, SegueError, tbpttAt, type InitialStateRule, type JobSpec } from "@segue/core";
import type { Segments, ShardSegment } from "@segue/protocol";
import type { SegmentRules } from "@segue/engine";
import type { ShardBatch } from "../compute/calls.js";

/** One step's work for this worker. */
export interface StepSegments {
  readonly totalWeight: number;
  readonly learningRate: number;
  readonly batches: readonly ShardBatch[];
}

/**
 * Takes a step's segments off the wire.
 * @throws SegueError SEGMENT_INVALID when an array does not have lanesPerShard * segmentsPerStep * segmentTokens entries of its step
 */
export function stepSegments(message: Segments, spec: JobSpec): StepSegments {
  const entries = spec.batch.lanesPerShard * laneTokensPerStep(tbpttAt(spec.tbptt, message.step));
  const { totalWeight, learningRate, shards } = message;
  return { totalWeight, learningRate, batches: shards.map((segment) => shardBatch(segment, entries)) };
}

/** How a step (0-based) is computed: the settings in force, and what a lane's state begins with where it is dropped before the step. */
export function stepRules({ tbptt, seed }: JobSpec, step: number): { rules: SegmentRules; initialState?: InitialStateRule } {
  const { segmentTokens, gradient, carrySsm, carryConv, initialState: kind, initialStateStd: std } = tbpttAt(tbptt, step);
  const rules = { segmentTokens, gradient, carrySsm, carryConv };
  return kind === "zero" ? { rules } : { rules, initialState: { kind, std, seed, step } };
}

/** Sum of the label weights of a step over the given shards. */
export function weightOf(batches: readonly ShardBatch[]): number {
  return batches.reduce((sum, { labels, weights }) => {
    return sum + (weights ? weights.reduce((total, weight) => total + weight, 0) : labels.length);
  }, 0);
}

function shardBatch(segment: ShardSegment, entries: number): ShardBatch {
  const own = (name: string, bytes: Uint8Array, size: number): ArrayBuffer => {
    if (bytes.byteLength !== entries * size) {
      const sizes = `${bytes.byteLength} bytes instead of ${entries * size}`;
      throw new SegueError("SEGMENT_INVALID", `${name} of shard ${segment.shard} have ${sizes}`);
    }
    // The bytes lie anywhere inside the message; a copy of its own is aligned.
    return bytes.slice().buffer;
  };
  const { shard, tokens, labels, weights, resets } = segment;
  return {
    shard,
    tokens: new Int32Array(own("tokens", tokens, Int32Array.BYTES_PER_ELEMENT)),
    labels: new Int32Array(own("labels", labels, Int32Array.BYTES_PER_ELEMENT)),
    weights: weights.length === 0 ? undefined : new Float32Array(own("weights", weights, Float32Array.BYTES_PER_ELEMENT)),
    resets: resets.length === 0 ? undefined : new Uint8Array(own("resets", resets, 1)),
  };
}
