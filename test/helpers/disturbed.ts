import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { LocalCluster, LocalClusterOptions, ServiceCrash } from "@segue/cli";
import type { Scratch } from "./clusters.js";
import { finalDigest, submitSpec, waitForSuccess } from "./jobs.js";

/**
 * The job of the exactness suite: 200 steps of eight shards, a checkpoint every 60, rounds of a few steps, and enough parameters that
 * three workers exchange slices.
 */
export function exactnessSpec(
  overrides: { minWorkers?: number; maxWorkers?: number; transport?: "grpc" | "ipc"; optimizer?: "replicated" | "sharded" } = {},
): string {
  // Over gRPC there is the most that can fail; all workers here share a host.
  const { minWorkers = 1, maxWorkers = 4, transport = "grpc", optimizer = "replicated" } = overrides;
  return `
name: exactness
seed: 11
model: { layers: 2, dModel: 64, dState: 32, headDim: 32, chunk: 32 }
data: { passkey: { documentTokens: 300, digits: 2, askProbability: 0.5, answerWeight: 4 } }
tbptt: { segmentTokens: 32, segmentsPerChain: 0 }
batch: { shards: 8, lanesPerShard: 2 }
optimizer: { learningRate: 0.01 }
schedule: { warmupSteps: 2, decaySteps: 50 }
train: { steps: 200, engine: cpu }
rounds: { targetMs: 200, maxSteps: 8 }
sync: { transport: ${transport}, optimizer: ${optimizer} }
checkpoints: { everySteps: 60, keepLast: 3 }
workers: { min: ${minWorkers}, max: ${maxWorkers} }
`;
}

/** A cluster whose services are started again when they die, as a supervisor would. */
export async function supervisedCluster(scratch: Scratch, options: Partial<LocalClusterOptions>): Promise<LocalCluster> {
  const cluster: LocalCluster = await scratch.cluster({
    engine: "cpu",
    threads: 1,
    ...options,
    onCrash: ({ name }: ServiceCrash) => void cluster.restart(name).catch(() => undefined),
  });
  return cluster;
}

/** Trains to the end while `disturb` does its worst. @returns step and digest of the final checkpoint */
export async function trainDisturbed(
  scratch: Scratch,
  cluster: LocalCluster,
  spec: string,
  disturb: (jobId: string) => Promise<unknown> = () => Promise.resolve(),
): Promise<string> {
  const jobId = await submitSpec(scratch, cluster, spec);
  const [, job] = await Promise.all([disturb(jobId), waitForSuccess(cluster, jobId)]);
  assert.equal(job.phase, "SUCCEEDED");
  return finalDigest(cluster, jobId);
}

let undisturbed: Promise<string> | undefined;

/** How {@link exactnessSpec} ends on one worker that nobody disturbs; trained once for all tests. */
export function undisturbedDigest(scratch: Scratch): Promise<string> {
  undisturbed ??= supervisedCluster(scratch, { workers: 1 })
    .then((cluster) => trainDisturbed(scratch, cluster, exactnessSpec()))
    .finally(() => scratch.close());
  return undisturbed;
}

/** How often planned faults have happened in a service, as its log says. */
export function faultsSuffered(cluster: LocalCluster, name: string): number {
  return readFileSync(join(cluster.logsDir, `${name}.log`), "utf8").split('"event":"fault"').length - 1;
}

/** Steps that the coordinator has gone to: the start, or a checkpoint's. */
export function stepsRestored(cluster: LocalCluster): number[] {
  const log = readFileSync(join(cluster.logsDir, "coordinator.log"), "utf8");
  return [...log.matchAll(/"event":"jobRestored","step":(\d+)/g)].map(([, step]) => Number(step));
}
