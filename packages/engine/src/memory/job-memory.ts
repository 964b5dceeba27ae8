import {
  assignShards,
  LIMITS,
  mostLaneTokensPerStep,
  mostWorkers,
  parameterLayout,
  shardsPerPlacement,
  tbpttStages,
  type JobSpec,
} from "@segue/core";
import type { EngineName } from "../create-engine.js";
import { coordinatorParts } from "./coordinator-parts.js";
import { engineParts } from "./engine-parts.js";
import { bytesIn, type MemoryPart } from "./memory-part.js";
import { workerParts } from "./worker-parts.js";

export interface MemoryOptions {
  /** Workers that share the job. */
  readonly workers: number;
  readonly engine: EngineName;
  /** CPU threads of each worker. */
  readonly threads: number;
}

export interface ProcessMemory {
  readonly parts: readonly MemoryPart[];
  readonly hostBytes: number;
  /** Of the GPU. */
  readonly deviceBytes: number;
}

export interface JobMemory extends MemoryOptions {
  readonly parameters: number;
  /** The worker that needs the most, in the stage of the curriculum in which it does. */
  readonly worker: ProcessMemory;
  readonly coordinator: ProcessMemory;
  /** What the figures leave out; empty where measured peaks agree with them. */
  readonly caveat: string;
}

const CAVEATS: Readonly<Record<EngineName, string>> = {
  cpu: "",
  tfjs: "a lower bound: TensorFlow.js keeps every intermediate result of a segment, which is not predicted",
  cuda: "a lower bound: the driver, cuBLASLt, recorded graphs and scratch on the GPU are not predicted",
};

/**
 * What a job needs at its peak on a worker and on the coordinator: a function of the spec alone, so that it can be told before anything
 * starts.
 * @throws RangeError for more workers than the job can use
 */
export function jobMemory(spec: JobSpec, options: MemoryOptions): JobMemory {
  const { workers, engine, threads } = options;
  if (workers < 1 || workers > mostWorkers(spec)) throw new RangeError(`${workers} workers for a job of 1 to ${mostWorkers(spec)}`);
  const stages = tbpttStages(spec.tbptt).map((tbptt) => ({ ...spec, tbptt }));
  const members = stages.flatMap((stage) =>
    assignShards(spec.batch.shards, workers, shardsPerPlacement(spec)).map(({ length }, member) =>
      processMemory([
        ...engineParts({ spec: stage, engine, threads, shards: length, workers, member }),
        ...workerParts({ spec: stage, workers, member, engine, threads }),
      ]),
    ),
  );
  const coordinators = stages.map((stage) => processMemory(coordinatorParts(stage, workers * threads)));
  const total = ({ hostBytes, deviceBytes }: ProcessMemory): number => hostBytes + deviceBytes;
  const largest = (of: readonly ProcessMemory[]): ProcessMemory =>
    of.reduce((most, one) => (total(one) > total(most) ? one : most));
  return {
    workers,
    engine,
    threads,
    parameters: parameterLayout(spec.model).size,
    worker: largest(members),
    coordinator: largest(coordinators),
    caveat: CAVEATS[engine],
  };
}

/** The same job with sync.optimizer sharded, where that may be and is something else. */
export function shardedMemory(spec: JobSpec, options: MemoryOptions): JobMemory | undefined {
  const { sync } = spec;
  const isExact = sync.mode === "exact" && sync.wire === "f32" && sync.transport !== "grpc";
  if (!isExact || sync.optimizer === "sharded" || options.engine === "tfjs" || options.workers === 1) return undefined;
  return jobMemory({ ...spec, sync: { ...sync, optimizer: "sharded" } }, options);
}

/**
 * The largest `batch.lanesPerShard` that a job spec may have and with which a worker stays within the limits; 0 when not even one lane fits.
 * @param limits bytes of the machine and, for cuda, of its GPU
 */
export function largestLanesPerShard(
  spec: JobSpec,
  options: MemoryOptions,
  limits: { readonly hostBytes?: number | undefined; readonly deviceBytes?: number | undefined },
): number {
  const { hostBytes = Infinity, deviceBytes = Infinity } = limits;
  const fits = (lanesPerShard: number): boolean => {
    const { worker } = jobMemory({ ...spec, batch: { ...spec.batch, lanesPerShard } }, options);
    return worker.hostBytes <= hostBytes && worker.deviceBytes <= deviceBytes;
  };
  let fitting = 0;
  let tooMany = Math.floor(LIMITS.tokensPerShard / mostLaneTokensPerStep(spec.tbptt)) + 1;
  while (tooMany - fitting > 1) {
    const middle = Math.floor((fitting + tooMany) / 2);
    if (fits(middle)) fitting = middle;
    else tooMany = middle;
  }
  return fitting;
}

function processMemory(parts: readonly MemoryPart[]): ProcessMemory {
  const largestFirst = [...parts].sort((a, b) => b.bytes - a.bytes);
  return { parts: largestFirst, hostBytes: bytesIn(parts, "host"), deviceBytes: bytesIn(parts, "device") };
}
