import { WorkerState, type WorkerInfoSchema } from "@segue/protocol";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { AttachedWorker } from "./attached-worker.js";

/** What a worker is up to; `shards`: those that it holds in its job's present generation. */
export function workerState(
  { expelled, draining, jobId }: Pick<AttachedWorker, "expelled" | "draining" | "jobId">,
  shards: readonly number[],
): "EXPELLED" | "DRAINED" | "DRAINING" | "IDLE" | "TRAINING" | "JOINING" {
  if (expelled) return "EXPELLED";
  if (draining) return jobId === undefined ? "DRAINED" : "DRAINING";
  if (jobId === undefined) return "IDLE";
  return shards.length > 0 ? "TRAINING" : "JOINING";
}

export function workerInfo(worker: AttachedWorker, shards: readonly number[]): MessageInitShape<typeof WorkerInfoSchema> {
  const { workerId, hello, jobId, step, rssBytes, shardMs, stepTimes, straggler, seenAtMs, gpuLoad } = worker;
  return {
    workerId,
    name: hello.name,
    state: WorkerState[workerState(worker, shards)],
    jobId: jobId ?? "",
    shards: [...shards],
    step,
    engines: hello.engines,
    device: hello.device,
    rssBytes: BigInt(rssBytes),
    shardMs,
    stepTimes,
    straggler,
    seenAtMs: BigInt(seenAtMs),
    tensorsAddress: hello.tensorsAddress,
    ...(hello.gpu ? { gpu: hello.gpu } : {}),
    ...(gpuLoad ? { gpuLoad } : {}),
    hostId: hello.hostId,
    ncclVersion: hello.ncclVersion,
  };
}
