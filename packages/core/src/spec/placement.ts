import type { JobSpec } from "./job-spec.js";

/** Shards that must lie on the same worker: a replica's under diloco, else single ones. */
export function shardsPerPlacement({ batch, sync }: Pick<JobSpec, "batch" | "sync">): number {
  return sync.mode === "diloco" ? batch.shards / sync.replicas : 1;
}

/** The most workers a job can use. */
export function mostWorkers({ batch, sync }: Pick<JobSpec, "batch" | "sync">): number {
  return sync.mode === "diloco" ? sync.replicas : batch.shards;
}

/** Vectors of the size of the parameters that make up a snapshot: weights, first and second moments, under diloco the outer momentum. */
export function modelVectors({ sync }: Pick<JobSpec, "sync">): number {
  return sync.mode === "diloco" ? 4 : 3;
}
