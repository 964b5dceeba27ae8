import { laneStateFloats, modelWidths, optimizerSlice, parameterLayout, type JobSpec, type ModelSpec } from "@segue/core";
import type { EngineName } from "../create-engine.js";
import { cudaBufferFloats } from "../cuda/buffer-floats.js";
import { keptStateFloats } from "../cuda/kept-states.js";
import { trainingArenaFloats } from "../native/training-buffers.js";
import { FLOAT_BYTES, hostPart, MIB, type MemoryPart } from "./memory-part.js";

export interface EngineLoad {
  readonly spec: JobSpec;
  readonly engine: EngineName;
  /** CPU threads that compute. */
  readonly threads: number;
  /** Shards placed on the worker. */
  readonly shards: number;
  readonly workers: number;
  /** Its place among the workers. */
  readonly member: number;
}

/** Floats of each of AdamW's moments that a worker steps, and those of which it keeps a copy for the next worker (sync.optimizer sharded). */
export function momentFloats({ spec, workers, member }: Pick<EngineLoad, "spec" | "workers" | "member">): {
  own: number;
  copy: number;
} {
  const { size } = parameterLayout(spec.model);
  if (spec.sync.optimizer !== "sharded" || workers === 1) return { own: size, copy: 0 };
  const [own, copy] = [member, (member + 1) % workers].map((index) => optimizerSlice(index, workers, size));
  return { own: own!.end - own!.begin, copy: copy!.end - copy!.begin };
}

/**
 * What an engine holds while it trains, except what the report cannot know: the intermediate results of tfjs, and the libraries, recorded
 * work and scratch of cuda.
 */
export function engineParts(load: EngineLoad): MemoryPart[] {
  const { spec, engine, threads, shards } = load;
  const { model, batch, tbptt, train } = spec;
  const { lanesPerShard } = batch;
  const place = engine === "cuda" ? "device" : "host";
  const onDevice = engine === "cuda" ? cudaKeeping(train.precision) : {};
  const parameters = parameterLayout(model).size;
  const weightFloats = onDevice.bufferFloats?.(parameters, "mirrored") ?? parameters;
  const isCut = tbptt.segmentsPerStep > 1;
  const { own } = momentFloats(load);
  const parts: MemoryPart[] = [
    {
      ...hostPart("weights", place === "device" ? "parameters, in float32 and rounded" : "parameters", weightFloats * FLOAT_BYTES),
      place,
    },
    {
      ...hostPart("AdamW moments", own < parameters ? "2 x parameters / workers" : "2 x parameters", 2 * own * FLOAT_BYTES),
      place,
    },
    isCut
      ? { ...hostPart("gradients", "2 x parameters: the sum, and one segment's", 2 * parameters * FLOAT_BYTES), place }
      : { ...hostPart("gradient", "parameters", parameters * FLOAT_BYTES), place },
    {
      ...hostPart("lane states", "shards here x lanes x state", shards * lanesPerShard * laneStateFloats(model) * FLOAT_BYTES),
      place,
    },
  ];
  if (engine === "tfjs") return parts;
  const chained = tbptt.gradient === "full" ? tbptt.segmentsPerStep : 1;
  const arena = trainingArenaFloats(model, lanesPerShard, tbptt.segmentTokens, 1, onDevice) * FLOAT_BYTES;
  const chain = trainingArenaFloats(model, lanesPerShard, tbptt.segmentTokens, chained, onDevice) * FLOAT_BYTES - arena;
  parts.push({ ...hostPart("activations", "one segment of one shard, forward and backward", arena), place });
  if (chain > 0) parts.push({ ...hostPart("start states", "segments a step x lanes x state (tbptt.gradient full)", chain), place });
  if (engine === "cpu") {
    parts.push(hostPart("kernel scratch", "tiles and chunks of each thread, a slice of logits", scratchBytes(spec, threads)));
  }
  return parts;
}

/** Where memory does not run out: the engine computes again what it must. */
function cudaKeeping(precision: "f32" | "bf16"): NonNullable<Parameters<typeof trainingArenaFloats>[4]> {
  const bufferFloats = cudaBufferFloats(precision);
  return { economies: 0, bufferFloats, ...(precision === "bf16" && { keptStateFloats }) };
}

/** Tiles of matrix products that a thread packs; the widest variant's. */
const TILE_BYTES = 1.2 * MIB;

/** What the C++ kernels keep between operations (`packages/engine/native`): the largest wishes of scan, head and convolution. */
function scratchBytes({ model, batch, tbptt }: JobSpec, threads: number): number {
  const rows = batch.lanesPerShard * tbptt.segmentTokens;
  const perThread = TILE_BYTES + scanFloats(model, tbptt.segmentTokens) * FLOAT_BYTES;
  const logitRows = Math.min(rows, Math.max(64, Math.min(512, Math.floor(2 ** 23 / model.vocab))));
  const convBlocks = batch.lanesPerShard * Math.ceil(tbptt.segmentTokens / 64) + 1;
  const shared = logitRows * model.vocab + convBlocks * (model.dConv + 1) * modelWidths(model).convDim + rows;
  return threads * perThread + shared * FLOAT_BYTES;
}

/** Of the scan's backward pass over one chunk of one group of heads. */
function scanFloats({ chunk, headDim, dState, groups, ...model }: ModelSpec, segmentTokens: number): number {
  const rows = Math.min(chunk, segmentTokens);
  const { dInner } = modelWidths({ chunk, headDim, dState, groups, ...model });
  return rows * (4 * rows + 4 * (dInner / groups) + 3 * headDim + 4 * dState);
}
