import { SegueError, type JobSpec } from "@segue/core";
import type { Client, Jobs } from "@segue/protocol";
import { followJob } from "../commands/follow-job.js";
import { submitJob } from "../commands/submit-job.js";
import type { JobView } from "../show/job-view.js";

export interface MeasuredSpeed {
  readonly tokensPerSecond: number;
  /** In words, as the workers say it. */
  readonly engine: string;
}

/**
 * Trains the recipe for a moment on the cluster as it is, to see how fast it goes; the job is cancelled then.
 * @throws SegueError DEMO_FAILED when it does not run
 */
export async function measureSpeed(
  jobs: Client<typeof Jobs>,
  recipe: JobSpec,
  options: { readonly measureMs: number; readonly signal: AbortSignal },
): Promise<MeasuredSpeed> {
  const spec = {
    ...recipe,
    name: `${recipe.name}-speed`,
    evaluations: [],
    checkpoints: { everySteps: 0, keepLast: 1, keepEvery: 0 },
  };
  const { jobId } = await submitJob(jobs, spec);
  let first: { readonly tokens: number; readonly atMs: number } | undefined;
  let last: JobView | undefined;
  for await (const view of followJob(jobs, jobId, { signal: options.signal })) {
    last = view;
    if (view.step === 0) continue;
    // The first steps compile kernels and warm caches: they do not count.
    first ??= { tokens: view.tokens, atMs: Date.now() };
    const elapsedMs = Date.now() - first.atMs;
    const tokens = view.tokens - first.tokens;
    if (elapsedMs < options.measureMs || tokens === 0) continue;
    await jobs.cancelJob({ jobId });
    return { tokensPerSecond: (1000 * tokens) / elapsedMs, engine: view.engine };
  }
  throw new SegueError("DEMO_FAILED", `${jobId} ended at once: ${last?.reason ?? "nobody says why"}`, { status: "ABORTED" });
}
