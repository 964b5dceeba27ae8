import { parameterLayout, tokensBefore } from "@segue/core";
import { redisKeys, type MetricsWriter } from "@segue/runtime";
import type { Manifest } from "../checkpoints/manifest.js";
import { etaSeconds, reasonOf, totalSteps, type JobView } from "../jobs/job-view.js";
import type { MemberStatus } from "../jobs/live-status.js";
import type { StepMetrics } from "../run/step-metrics.js";
import type { StepTimes } from "../run/stragglers.js";
import { gpuStatus } from "../workers/gpu-status.js";
import { workerState } from "../workers/worker-info.js";
import type { AttachedWorker } from "../workers/attached-worker.js";

const STREAM_ENTRIES = 20_000;
const SPANS = [1, 10, 100] as const;

interface Span {
  losses: number;
  count: number;
}

/** Of all members that have finished a round; nothing before. */
function meanStepTimes(members: readonly MemberStatus[]): Partial<StepTimes> {
  const known = members.flatMap(({ stepTimes }) => stepTimes ?? []);
  if (known.length === 0) return {};
  const mean = (part: keyof StepTimes): number => known.reduce((sum, times) => sum + times[part], 0) / known.length;
  return { computeMs: mean("computeMs"), exchangeMs: mean("exchangeMs"), restMs: mean("restMs") };
}

/** Everything the coordinator tells Redis, as docs/reference/redis.md describes it. Without Redis nothing is written. */
export class JobMetrics {
  readonly #writer: MetricsWriter | undefined;
  readonly #spans = new Map<string, Span>();

  constructor(writer: MetricsWriter | undefined) {
    this.#writer = writer;
  }

  job(view: JobView): void {
    const { record, live } = view;
    const { spec, jobId } = record;
    this.#writer?.zadd(redisKeys.jobs, record.submittedAtMs, jobId);
    this.#writer?.hash(redisKeys.job(jobId), {
      name: spec.name,
      phase: record.phase,
      reason: reasonOf(view),
      ...live,
      members: JSON.stringify(live.members),
      ...meanStepTimes(live.members),
      totalSteps: totalSteps(record),
      tokens: tokensBefore(spec, live.step),
      totalTokens: tokensBefore(spec, totalSteps(record)),
      attempt: record.attempt,
      etaSeconds: etaSeconds(view),
      parameters: parameterLayout(spec.model).size,
      submittedAtMs: record.submittedAtMs,
      updatedAtMs: record.updatedAtMs,
      spec: JSON.stringify(spec),
    });
    this.#writer?.publish(redisKeys.events, jobId);
  }

  /** The steps of a committed round. */
  steps({ record, live }: JobView, steps: readonly StepMetrics[]): void {
    const { jobId, attempt, spec } = record;
    for (const metrics of steps) {
      for (const every of SPANS) {
        const key = redisKeys.train(jobId, attempt, every);
        const span = this.#spans.get(key) ?? { losses: 0, count: 0 };
        span.losses += metrics.loss;
        span.count++;
        this.#spans.set(key, span);
        if (metrics.step % every !== 0) continue;
        this.#spans.delete(key);
        this.#writer?.stream(key, STREAM_ENTRIES, {
          step: metrics.step,
          loss: span.losses / span.count,
          lr: metrics.learningRate,
          gnorm: metrics.gradientNorm,
          tps: live.tokensPerSecond,
          tokens: tokensBefore(spec, metrics.step),
        });
      }
    }
  }

  checkpoint({ jobId, step, digest, createdAtMs, sizeBytes, loss }: Manifest): void {
    // Scores are steps: a checkpoint that was written again replaces its older entry.
    this.#writer?.zremByScore(redisKeys.checkpoints(jobId), step);
    this.#writer?.zadd(redisKeys.checkpoints(jobId), step, JSON.stringify({ step, digest, createdAtMs, sizeBytes, loss }));
  }

  checkpointDeleted(jobId: string, step: number): void {
    this.#writer?.zremByScore(redisKeys.checkpoints(jobId), step);
  }

  worker(worker: AttachedWorker, shards: readonly number[]): void {
    const { workerId, hello, jobId, step, rssBytes, seenAtMs, shardMs, stepTimes, straggler } = worker;
    const content = {
      name: hello.name,
      engine: hello.engines[0] ?? "",
      detail: hello.device,
      gpu: gpuStatus(worker),
      hostId: hello.hostId,
      ncclVersion: hello.ncclVersion,
      jobId: jobId ?? "",
      shards,
      step,
      rssBytes,
      state: workerState(worker, shards).toLowerCase(),
      shardMs,
      stepTimes,
      straggler,
      seenAtMs,
    };
    this.#writer?.hash(redisKeys.workers, { [workerId]: JSON.stringify(content) });
  }

  workerGone(workerId: string): void {
    this.#writer?.hashDelete(redisKeys.workers, workerId);
  }
}
