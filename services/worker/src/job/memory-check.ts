import { SegueError, type JobSpec } from "@segue/core";
import { jobMemory, largestLanesPerShard, shardedMemory, type MemoryOptions } from "@segue/engine";

/** Predicted peaks are within 10 % of measured ones, so what is above by more cannot work. */
const CERTAINTY = 0.9;

export interface MemoryVerdict {
  readonly neededBytes: number;
  readonly machineBytes: number;
  /** fits: no doubt. tight: it may end in the kernel's killing the worker. impossible: it would. */
  readonly verdict: "fits" | "tight" | "impossible";
}

/** Whether this machine has the memory that the job's largest worker needs; all of it is taken to be free. */
export function judgeMemory(spec: JobSpec, options: MemoryOptions, machineBytes: number): MemoryVerdict {
  const neededBytes = jobMemory(spec, options).worker.hostBytes;
  const verdict = neededBytes <= machineBytes ? "fits" : CERTAINTY * neededBytes <= machineBytes ? "tight" : "impossible";
  return { neededBytes, machineBytes, verdict };
}

/** Says what to change. */
export function memoryInsufficient(spec: JobSpec, options: MemoryOptions, verdict: MemoryVerdict): SegueError {
  const { neededBytes, machineBytes } = verdict;
  const lanes = largestLanesPerShard(spec, options, { hostBytes: machineBytes });
  const { lanesPerShard } = spec.batch;
  const sharded = shardedMemory(spec, options)?.worker.hostBytes ?? Infinity;
  const remedy =
    sharded <= machineBytes
      ? `set sync.optimizer to sharded, with which it needs ${gibibytes(sharded)}`
      : lanes > 0 && lanes < lanesPerShard
        ? `set batch.lanesPerShard to at most ${lanes} instead of ${lanesPerShard} (more shards keep the batch as large)`
        : "take a smaller model or a shorter tbptt.segmentTokens";
  const message =
    `the job needs ${gibibytes(neededBytes)} on each of ${options.workers} worker(s), this one's machine or container has ` +
    `${gibibytes(machineBytes)}; ${remedy}, or give the worker more memory (\`segue memory\` shows the parts)`;
  return new SegueError("MEMORY_INSUFFICIENT", message, { status: "FAILED_PRECONDITION" });
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toPrecision(3)} GiB`;
}
