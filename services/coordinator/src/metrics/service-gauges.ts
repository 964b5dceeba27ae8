import type { ServiceGauge } from "@segue/runtime";
import type { JobView } from "../jobs/job-view.js";
import type { AttachedWorker } from "../workers/attached-worker.js";
import { gpuStatus, type GpuStatus } from "../workers/gpu-status.js";

/** What the gauges are read from. */
export interface ClusterView {
  readonly jobs: readonly JobView[];
  readonly workers: readonly AttachedWorker[];
}

const PARTS = ["compute", "exchange", "rest"] as const;

/** The cluster as Prometheus sees it: jobs that train, and where the time of a step goes on each worker. */
export function serviceGauges(view: () => ClusterView): ServiceGauge[] {
  const ofJobs = (name: string, help: string, valueOf: (job: JobView) => number): ServiceGauge => ({
    name,
    help,
    labels: ["job"],
    values: () =>
      view().jobs.flatMap((job) => {
        const { phase, jobId } = job.record;
        return phase === "RUNNING" || phase === "PAUSING" ? [{ labels: { job: jobId }, value: valueOf(job) }] : [];
      }),
  });
  const ofGpus = (name: string, help: string, valueOf: (gpu: GpuStatus) => number | undefined): ServiceGauge => ({
    name,
    help,
    labels: ["worker", "gpu", "name"],
    values: () =>
      view().workers.flatMap((worker) => {
        const gpu = gpuStatus(worker);
        if (!gpu) return [];
        const value = valueOf(gpu);
        return value === undefined ? [] : [{ labels: { worker: worker.workerId, gpu: gpu.uuid, name: gpu.name }, value }];
      }),
  });
  return [
    ofJobs("job_step", "Optimizer steps committed, of jobs that train.", ({ live }) => live.step),
    ofJobs("job_loss", "Weighted mean loss of the last committed step.", ({ live }) => live.loss),
    ofJobs("job_tokens_per_second", "Committed tokens a second, of the last round.", ({ live }) => live.tokensPerSecond),
    ofJobs("job_workers", "Members of the job's present generation.", ({ live }) => live.workers),
    {
      name: "worker_step_seconds",
      help: "Time of one step by part: compute, exchange (waiting for the others' gradients), rest.",
      labels: ["worker", "job", "part"],
      values: () => {
        return view().workers.flatMap(({ workerId, jobId, stepTimes }) => {
          if (jobId === undefined || !stepTimes) return [];
          return PARTS.map((part) => ({
            labels: { worker: workerId, job: jobId, part },
            value: stepTimes[`${part}Ms`] / 1_000,
          }));
        });
      },
    },
    {
      name: "worker_straggler",
      help: "1: the worker is much slower than the other members of its job.",
      labels: ["worker", "job"],
      values: () => {
        return view().workers.flatMap(({ workerId, jobId, straggler }) => {
          return jobId === undefined ? [] : [{ labels: { worker: workerId, job: jobId }, value: straggler ? 1 : 0 }];
        });
      },
    },
    ofGpus("worker_gpu_memory_bytes", "Memory of the worker's GPU.", (gpu) => gpu.memoryBytes),
    ofGpus("worker_gpu_memory_used_bytes", "Of it in use, by all processes.", (gpu) => gpu.memoryUsedBytes),
    ofGpus("worker_gpu_utilisation", "Share of the last moments in which a kernel ran on the worker's GPU.", (gpu) =>
      gpu.utilisationPercent === undefined ? undefined : gpu.utilisationPercent / 100,
    ),
    ofGpus("worker_gpu_temperature_celsius", "Temperature of the worker's GPU.", (gpu) => gpu.temperatureCelsius),
  ];
}
