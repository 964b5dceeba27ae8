import { SegueError, type JobSpec } from "@segue/core";
import type { LocalCluster } from "../cluster/local-cluster.js";
import { followJob } from "../commands/follow-job.js";
import { submitJob } from "../commands/submit-job.js";
import { connect } from "../connection.js";
import type { CliRuntime } from "../runtime.js";
import type { JobView } from "../show/job-view.js";

export interface FinishedJob {
  readonly step: number;
  /** SHA-256 over weights, optimizer, lane states and cursors. */
  readonly digest: string;
  readonly seconds: number;
  readonly job: JobView;
}

/**
 * Trains a spec to its end on a cluster.
 * @param onChange called with every state of the job that the coordinator reports
 * @throws SegueError CHAOS_JOB_FAILED when the job fails or is cancelled
 */
export async function runJob(
  cluster: LocalCluster,
  spec: JobSpec,
  runtime: Pick<CliRuntime, "env" | "signal">,
  onChange: (job: JobView) => void,
): Promise<FinishedJob> {
  const connection = connect({ coordinator: cluster.coordinator }, runtime.env);
  const startedAtMs = Date.now();
  try {
    let last = await submitJob(connection.jobs, spec);
    for await (last of followJob(connection.jobs, last.jobId, { signal: runtime.signal })) onChange(last);
    const { phase, reason, jobId, checkpointStep, checkpointDigest } = last;
    if (phase !== "SUCCEEDED") {
      throw new SegueError("CHAOS_JOB_FAILED", `${jobId} ended ${phase.toLowerCase()}: ${reason}`, { status: "ABORTED" });
    }
    return { step: checkpointStep, digest: checkpointDigest, seconds: (Date.now() - startedAtMs) / 1000, job: last };
  } finally {
    connection.close();
  }
}
