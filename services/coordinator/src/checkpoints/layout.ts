import { laneStateFloats, modelVectors, parameterLayout, safetensorsHeader, type JobSpec } from "@segue/core";

/**
 * The tensor files of a checkpoint: a safetensors header, then data that are the flat vectors byte for byte, since the parameters lie in
 * the flat vector in the order of the layout. So files are streamed from and to the wire without rearranging anything.
 */
export interface CheckpointLayout {
  /** Bytes of the flat weights, and of each moment. */
  readonly vectorBytes: number;
  /** Such vectors in a snapshot, the weights first. */
  readonly vectors: number;
  readonly parameters: number;
  readonly laneBytes: number;
  readonly modelHeader: Uint8Array;
  readonly optimizerHeader: Uint8Array;
  readonly lanesHeader: Uint8Array;
}

export function checkpointLayout(spec: JobSpec): CheckpointLayout {
  const { entries, size } = parameterLayout(spec.model);
  const named = (prefix: string) => entries.map(({ name, shape }) => ({ name: prefix + name, dtype: "F32" as const, shape }));
  const lanes = spec.batch.shards * spec.batch.lanesPerShard;
  const laneFloats = laneStateFloats(spec.model);
  const moments = [...named("exp_avg."), ...named("exp_avg_sq.")];
  return {
    vectorBytes: 4 * size,
    vectors: modelVectors(spec),
    parameters: size,
    laneBytes: 4 * lanes * laneFloats,
    modelHeader: safetensorsHeader(named(""), { format: "pt" }),
    optimizerHeader: safetensorsHeader(spec.sync.mode === "diloco" ? [...moments, ...named("outer_momentum.")] : moments),
    lanesHeader: safetensorsHeader([{ name: "states", dtype: "F32", shape: [lanes, laneFloats] }]),
  };
}
