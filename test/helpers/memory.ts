import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startLocalCluster, type LocalCluster } from "@segue/cli";
import { parseJobSpec, type JobSpec } from "@segue/core";
import { Jobs, JobPhase } from "@segue/protocol";
import { connectClient } from "@segue/runtime";

/** Whether this system tells the largest memory that a process ever had: Linux does, in /proc. */
export const CAN_MEASURE_PEAKS = existsSync("/proc/self/status");

/** The largest resident memory that a process has had so far, in bytes. */
export function peakBytes(pid: number): number {
  const [, kibibytes] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  if (kibibytes === undefined) throw new Error(`/proc/${pid}/status has no VmHWM`);
  return 1024 * Number(kibibytes);
}

export interface MeasuredJob {
  readonly spec: JobSpec;
  /** Of the worker that needed the most. */
  readonly workerBytes: number;
  readonly coordinatorBytes: number;
}

/** Sizes from tiny to one where the process itself no longer matters, on the cpu engine; each a job spec without `workers`. */
export const MEMORY_SPECS: Readonly<Record<string, string>> = {
  tiny: `
model: { layers: 1, dModel: 16, dState: 8, headDim: 8, chunk: 16 }
data: { passkey: { documentTokens: 300, digits: 2 } }
tbptt: { segmentTokens: 32, segmentsPerChain: 0 }
batch: { shards: 4, lanesPerShard: 2 }
train: { steps: 300, engine: cpu }
`,
  d128: `
model: { layers: 2, dModel: 128, dState: 32, headDim: 32, chunk: 64 }
data: { passkey: {} }
tbptt: { segmentTokens: 256, segmentsPerChain: 0 }
batch: { shards: 2, lanesPerShard: 32 }
train: { steps: 20, engine: cpu }
`,
  d512: `
model: { layers: 4, dModel: 512, dState: 64, headDim: 64, chunk: 64 }
data: { passkey: {} }
tbptt: { segmentTokens: 256, segmentsPerChain: 0 }
batch: { shards: 2, lanesPerShard: 4 }
train: { steps: 6, engine: cpu }
checkpoints: { everySteps: 3 }
`,
  "d512, 4 segments a step": `
model: { layers: 4, dModel: 512, dState: 64, headDim: 64, chunk: 64 }
data: { passkey: {} }
tbptt: { segmentTokens: 64, segmentsPerStep: 4, gradient: full, segmentsPerChain: 0 }
batch: { shards: 2, lanesPerShard: 4 }
train: { steps: 4, engine: cpu }
`,
  d768: `
model: { layers: 8, dModel: 768, dState: 128, headDim: 64, chunk: 64 }
data: { passkey: {} }
tbptt: { segmentTokens: 128, segmentsPerChain: 0 }
batch: { shards: 4, lanesPerShard: 1 }
train: { steps: 4, engine: cpu }
`,
};

/** Trains a job of {@link MEMORY_SPECS} to its end on a cluster of real processes, each with one thread, and measures their peaks. */
export async function measureJob(name: string, workers: number): Promise<MeasuredJob> {
  const dir = mkdtempSync(join(tmpdir(), "segue-memory-"));
  const yaml = `name: memory\n${MEMORY_SPECS[name] ?? ""}workers: { min: ${workers}, max: ${workers} }\n`;
  let cluster: LocalCluster | undefined;
  try {
    cluster = await startLocalCluster({ dir, workers, evaluators: 0, dashboard: false, threads: 1, engine: "cpu" });
    await trainToEnd(cluster, yaml);
    const peakOf = (service: string): number => peakBytes(cluster?.process(service).pid ?? -1);
    const ofWorkers = Array.from({ length: workers }, (_, index) => peakOf(`worker-${index + 1}`));
    return { spec: parseJobSpec(yaml).spec, workerBytes: Math.max(...ofWorkers), coordinatorBytes: peakOf("coordinator") };
  } finally {
    await cluster?.close();
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Submits a job and follows it. @throws Error when it does not succeed */
export async function trainToEnd(cluster: LocalCluster, yaml: string, onStep?: (step: number) => void): Promise<void> {
  const jobs = connectClient(Jobs, cluster.coordinator, {});
  try {
    const { job } = await jobs.submitJob({ source: { case: "yaml", value: yaml } });
    let last = job;
    for await (const { job: seen } of jobs.watchJob({ jobId: job?.jobId ?? "" })) {
      last = seen ?? last;
      onStep?.(Number(last?.step ?? 0));
    }
    if (last?.phase !== JobPhase.SUCCEEDED) throw new Error(`the job ended in phase ${last?.phase}: ${last?.reason}`);
  } finally {
    jobs.close();
  }
}
