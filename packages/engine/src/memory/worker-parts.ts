import {
  assignShards,
  laneStateFloats,
  laneTokensPerStep,
  modelVectors,
  parameterLayout,
  shardsPerPlacement,
  type JobSpec,
} from "@segue/core";
import type { EngineName } from "../create-engine.js";
import { momentFloats } from "./engine-parts.js";
import { FLOAT_BYTES, hostPart, MIB, type MemoryPart } from "./memory-part.js";
import { stepsWaiting, TOKEN_BYTES } from "./segments.js";
import { sumParts } from "./sum-parts.js";

/** Node.js with the worker's code, both threads' heaps and the libraries of the engines, before a job (`npm run bench:memory`). */
const PROCESS_BYTES = 104 * MIB;

/** What V8 lets two heaps at work grow by, and the buffers that wait for it to collect them. */
const HEAPS_BYTES = 42 * MIB;

interface WorkerLoad {
  readonly spec: JobSpec;
  readonly workers: number;
  /** Its place among the workers. */
  readonly member: number;
  readonly engine: EngineName;
  readonly threads: number;
}

/** What a worker holds beside its engine. */
export function workerParts({ spec, workers, member, engine, threads }: WorkerLoad): MemoryPart[] {
  const parameters = parameterLayout(spec.model).size;
  const vectorBytes = parameters * FLOAT_BYTES;
  const shards = (assignShards(spec.batch.shards, workers, shardsPerPlacement(spec))[member] ?? []).length;
  const shardTokens = spec.batch.lanesPerShard * laneTokensPerStep(spec.tbptt);
  const statesBytes = shards * spec.batch.lanesPerShard * laneStateFloats(spec.model) * FLOAT_BYTES;
  const { own, copy } = momentFloats({ spec, workers, member });
  const isSliced = own < parameters;
  const vectors = isSliced
    ? "parameters + 4 x parameters / workers: own moments, and a copy of the next worker's"
    : `${modelVectors(spec)} x parameters`;
  const modelBytes = isSliced ? vectorBytes + 2 * (own + copy) * FLOAT_BYTES : modelVectors(spec) * vectorBytes;
  return [
    hostPart("process", "Node.js, code, libraries: measured", PROCESS_BYTES),
    hostPart("heaps", "what they and dead buffers grow by at work: measured", HEAPS_BYTES),
    ...sumParts(spec, workers, member, engine),
    hostPart("snapshots", `2 x (${vectors} + lane states)`, 2 * (modelBytes + statesBytes)),
    hostPart(
      "waiting segments",
      "2 rounds x steps x shards here x tokens x 13 bytes",
      stepsWaiting(spec, workers * threads) * shards * shardTokens * TOKEN_BYTES,
    ),
    ...initialStateParts(spec),
    hostPart("segment arrays", "tokens, labels, weights, resets, losses of one shard", shardTokens * 2 * TOKEN_BYTES),
  ];
}

function initialStateParts({ tbptt, batch, model }: JobSpec): MemoryPart[] {
  if (tbptt.initialState === "zero") return [];
  return [hostPart("initial states", "lanes of one shard x state", batch.lanesPerShard * laneStateFloats(model) * FLOAT_BYTES)];
}
