import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startLocalCluster } from "@segue/cli";
import { parseJobSpec } from "@segue/core";
import { Jobs } from "@segue/protocol";
import { connectClient } from "@segue/runtime";
import { Fleet, type ProcessReport } from "./fleet.js";
import { processUsage } from "./process-usage.js";

export interface ScaleOptions {
  readonly workers: number;
  readonly shards: number;
  readonly processes: number;
  /** Measured, after the rounds have found their size. */
  readonly seconds: number;
  readonly warmupSeconds: number;
  /** How long a simulated step takes; 0: the coordinator alone sets the pace. */
  readonly stepMs: number;
  /** How often a worker must be heard of. @default the coordinator's own */
  readonly heartbeatMs?: number;
  readonly onProgress?: (line: string) => void;
}

/** One second of the measurement. */
export interface Sample {
  readonly segmentsPerSecond: number;
  readonly lateMs: number;
  readonly rssBytes: number;
  /** How long a GetJob took. */
  readonly answerMs: number;
}

export interface ScaleResult {
  readonly workers: number;
  readonly seconds: number;
  /** From the first connection to the first step of all workers. */
  readonly startMs: number;
  /** The longest that a pulse was late from the first connection to the first round. */
  readonly startLateMs: number;
  readonly samples: readonly Sample[];
  /** RSS of the coordinator before any worker came. */
  readonly emptyRssBytes: number;
  /** Of one core. */
  readonly coordinatorCpu: number;
  readonly fleetCpu: number;
  readonly segmentsPerSecond: number;
  readonly messagesPerSecond: number;
  readonly pullsPerSecond: number;
  readonly end: ProcessReport;
}

/** Many shards, tiny segments: a spec under which assignments are plentiful and each is small. */
export function scaleSpec(workers: number, shards: number): string {
  return `
name: scale
model: { layers: 1, dModel: 16, dState: 4, headDim: 8, chunk: 4 }
data: { passkey: { documentTokens: 1024, digits: 2 } }
tbptt: { segmentTokens: 16, segmentsPerChain: 0 }
batch: { shards: ${shards}, lanesPerShard: 1 }
train: { steps: 10000000 }
checkpoints: { everySteps: 0 }
workers: { min: ${workers}, max: ${workers} }
`;
}

/** Starts a coordinator with its own Redis and the workers, lets them train for the time given, and stops everything again. */
export async function runScale(options: ScaleOptions): Promise<ScaleResult> {
  const { workers, shards, processes, seconds, warmupSeconds, stepMs, heartbeatMs, onProgress } = options;
  const dir = await mkdtemp(join(tmpdir(), "segue-scale-"));
  const env = heartbeatMs === undefined ? {} : { SEGUE_HEARTBEAT_MS: String(heartbeatMs) };
  const cluster = await startLocalCluster({ dir, workers: 0, evaluators: 0, dashboard: false, env });
  const jobs = connectClient(Jobs, cluster.coordinator);
  const { pid } = cluster.process("coordinator");
  let fleet: Fleet | undefined;
  try {
    const yaml = scaleSpec(workers, shards);
    const { rssBytes: emptyRssBytes } = await processUsage(pid);
    const { job } = await jobs.submitJob({ source: { case: "yaml", value: yaml } });
    const jobId = job?.jobId ?? "";
    const startedAtMs = performance.now();
    fleet = await Fleet.start({ coordinator: cluster.coordinator, workers, processes, spec: parseJobSpec(yaml).spec, stepMs });
    let report = await fleet.report();
    let startLateMs = report.lateMs;
    while (report.rounds === 0 && report.faults.length === 0) {
      await sleep(100);
      report = await fleet.report();
      startLateMs = Math.max(startLateMs, report.lateMs);
    }
    const startMs = performance.now() - startedAtMs;
    onProgress?.(
      `${workers} workers attached and working after ${Math.round(startMs)} ms, pulses ${Math.round(startLateMs)} ms late`,
    );
    await sleep(1_000 * warmupSeconds);

    const usageOf = async () => {
      const [coordinator, ...fleetUsage] = await Promise.all([pid, ...(fleet?.pids ?? [])].map(processUsage));
      return { coordinator, fleetCpuSeconds: fleetUsage.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0) };
    };
    const first = await fleet.report();
    const before = await usageOf();
    const beganAtMs = performance.now();
    const samples: Sample[] = [];
    let last = first;
    let lastAtMs = beganAtMs;
    for (let second = 1; second <= seconds; second++) {
      await sleep(Math.max(0, beganAtMs + 1_000 * second - performance.now()));
      const askedAtMs = performance.now();
      await jobs.getJob({ jobId });
      const answerMs = performance.now() - askedAtMs;
      const now = await fleet.report();
      const nowMs = performance.now();
      const { rssBytes } = await processUsage(pid);
      const segmentsPerSecond = (1_000 * (now.segments - last.segments)) / (nowMs - lastAtMs);
      samples.push({ segmentsPerSecond, lateMs: now.lateMs, rssBytes, answerMs });
      onProgress?.(
        `${second} s: ${Math.round(segmentsPerSecond)} segments/s, pulses at most ${Math.round(now.lateMs)} ms late, ` +
          `${Math.round(rssBytes / 2 ** 20)} MiB, answer in ${Math.round(answerMs)} ms`,
      );
      last = now;
      lastAtMs = nowMs;
    }
    const after = await usageOf();
    const elapsedSeconds = (lastAtMs - beganAtMs) / 1_000;
    await jobs.cancelJob({ jobId });
    return {
      workers,
      seconds: elapsedSeconds,
      startMs,
      startLateMs,
      samples,
      emptyRssBytes,
      coordinatorCpu: ((after.coordinator?.cpuSeconds ?? NaN) - (before.coordinator?.cpuSeconds ?? NaN)) / elapsedSeconds,
      fleetCpu: (after.fleetCpuSeconds - before.fleetCpuSeconds) / elapsedSeconds,
      segmentsPerSecond: (last.segments - first.segments) / elapsedSeconds,
      messagesPerSecond: (last.received + last.sent - first.received - first.sent) / elapsedSeconds,
      pullsPerSecond: (last.pulls - first.pulls) / elapsedSeconds,
      end: await fleet.report(),
    };
  } finally {
    await fleet?.close();
    jobs.close();
    await cluster.close();
    await rm(dir, { recursive: true, force: true });
  }
}
