import { randomUUID } from "node:crypto";
import { jobSpecToYaml, SegueError, type JobSpec } from "@segue/core";
import type { LocalCluster } from "../cluster/local-cluster.js";
import { followJob } from "../commands/follow-job.js";
import { connect } from "../connection.js";
import type { CliRuntime } from "../runtime.js";
import { isFinal, jobView, type JobView } from "../show/job-view.js";

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
    const { job } = await connection.jobs.submitJob({
      source: { case: "yaml", value: jobSpecToYaml(spec) },
      idempotencyKey: randomUUID(),
    });
    if (!job) throw new SegueError("INTERNAL", "The coordinator answered without a job.", { status: "INTERNAL" });
    let last = jobView(job);
    for await (last of followJob(connection.jobs, last.jobId, { signal: runtime.signal })) onChange(last);
    const { phase, reason, jobId, checkpointStep, checkpointDigest } = last;
    if (!isFinal(phase) || phase !== "SUCCEEDED") {
      throw new SegueError("CHAOS_JOB_FAILED", `${jobId} ended ${phase.toLowerCase()}: ${reason}`, { status: "ABORTED" });
    }
    return { step: checkpointStep, digest: checkpointDigest, seconds: (Date.now() - startedAtMs) / 1000, job: last };
  } finally {
    connection.close();
  }
}
