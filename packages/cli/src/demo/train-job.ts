import { SegueError } from "@segue/core";
import { followJob } from "../commands/follow-job.js";
import type { Connection } from "../connection.js";
import { isFinal, type JobView } from "../show/job-view.js";
import type { ProgressView } from "../show/progress.js";

/** A job that has ended, or was paused since its time was up. */
export interface TrainedJob {
  readonly last: JobView;
  /** Of the first round. */
  readonly firstLoss: number;
  /** From the first round on, with everything that went on beside it. */
  readonly tokensPerSecond: number;
}

/**
 * Follows a job to its end. When the time runs out before, the job is paused, which leaves a checkpoint to evaluate; but not before its
 * first round is committed, however slow the machine is.
 * @throws SegueError DEMO_FAILED when it fails
 */
export async function trainJob(
  { jobs }: Connection,
  jobId: string,
  options: { readonly signal: AbortSignal; readonly endsAtMs: number; readonly progress: ProgressView | undefined },
): Promise<TrainedJob> {
  let first: { readonly loss: number; readonly tokens: number; readonly atMs: number } | undefined;
  let isTimeUp = false;
  let isPaused = false;
  const pauseInTime = (): void => {
    if (!isTimeUp || !first || isPaused) return;
    isPaused = true;
    options.progress?.note("the time for training is up: pausing the job");
    jobs.pauseJob({ jobId }).catch(() => undefined);
  };
  const timer = setTimeout(
    () => {
      isTimeUp = true;
      pauseInTime();
    },
    Math.max(0, options.endsAtMs - Date.now()),
  );
  try {
    for await (const job of followJob(jobs, jobId, { signal: options.signal })) {
      if (job.step > 0) first ??= { loss: job.loss, tokens: job.tokens, atMs: Date.now() };
      pauseInTime();
      options.progress?.update(job);
      if (job.phase === "FAILED" || job.phase === "CANCELLED") {
        throw new SegueError("DEMO_FAILED", `${jobId} ${job.phase.toLowerCase()}: ${job.reason}`, { status: "ABORTED" });
      }
      if (isFinal(job.phase) || job.phase === "PAUSED") {
        const seconds = first ? (Date.now() - first.atMs) / 1000 : NaN;
        return { firstLoss: first?.loss ?? NaN, tokensPerSecond: (job.tokens - (first?.tokens ?? 0)) / seconds, last: job };
      }
    }
  } finally {
    clearTimeout(timer);
    options.progress?.end();
  }
  throw new SegueError("DEMO_FAILED", `${jobId} is gone.`, { status: "ABORTED" });
}
