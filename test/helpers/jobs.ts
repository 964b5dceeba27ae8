import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { LocalCluster } from "@segue/cli";
import { JobPhase, Jobs, type Client } from "@segue/protocol";
import { connectClient, fromServiceError } from "@segue/runtime";
import { segueJson, type Scratch } from "./clusters.js";
import { PATIENCE_MS, until } from "./patience.js";

export interface CheckpointRow {
  readonly step: number;
  readonly digest: string;
  readonly loss: number;
}

export interface JobRow {
  readonly jobId: string;
  readonly phase: string;
  readonly step: number;
  readonly reason: string;
  readonly loss: number;
  readonly tokens: number;
  readonly engine: string;
  /** How members bring their gradients together, and why so. */
  readonly transport: string;
}

/** Submits a spec and returns the job's id. */
export async function submitSpec(scratch: Scratch, cluster: LocalCluster, spec: string): Promise<string> {
  const file = join(scratch.folder(), "job.yaml");
  writeFileSync(file, spec);
  return (await segueJson<JobRow>(cluster, "submit", file)).jobId;
}

export function jobOf(cluster: LocalCluster, jobId: string): Promise<JobRow> {
  return segueJson<JobRow>(cluster, "job", jobId);
}

/** Waits for the good end. @throws Error when the job does not succeed */
export async function waitForSuccess(cluster: LocalCluster, jobId: string): Promise<JobRow> {
  await waitForJob(cluster, jobId, ({ phase }) => phase === "SUCCEEDED");
  return jobOf(cluster, jobId);
}

type WatchedJob = Pick<JobRow, "phase" | "step" | "reason">;

/** The first version of the job that satisfies `done`, also over restarts of the coordinator. @throws Error when it ends before */
export async function waitForJob(cluster: LocalCluster, jobId: string, done: (job: WatchedJob) => boolean): Promise<WatchedJob> {
  // Not by `segue job` again and again: starting a process a second is most of the work on a small machine.
  return withJobs(cluster, (jobs) => {
    let last: WatchedJob | undefined;
    const watched = async (): Promise<WatchedJob | undefined> => {
      try {
        for await (const { job } of jobs.watchJob({ jobId }, { deadlineMs: PATIENCE_MS })) {
          if (!job) continue;
          last = { phase: JobPhase[job.phase], step: job.step, reason: job.reason };
          if (done(last)) return last;
        }
      } catch (error) {
        if (fromServiceError(error).status !== "UNAVAILABLE") throw error;
        return undefined;
      }
      throw new Error(`${jobId} ended ${last?.phase} at step ${last?.step}: ${last?.reason}`);
    };
    return until(watched, () => `${jobId}, which was ${last?.phase} at step ${last?.step}: ${last?.reason}`, 200);
  });
}

async function withJobs<T>(cluster: LocalCluster, use: (jobs: Client<typeof Jobs>) => Promise<T>): Promise<T> {
  const jobs = connectClient(Jobs, cluster.coordinator);
  try {
    return await use(jobs);
  } finally {
    jobs.close();
  }
}

/** Newest first. */
export function checkpointsOf(cluster: LocalCluster, jobId: string): Promise<CheckpointRow[]> {
  return segueJson<CheckpointRow[]>(cluster, "checkpoints", jobId);
}

/** The digest over weights, optimizer, lane states and cursors at the end of a job. */
export async function finalDigest(cluster: LocalCluster, jobId: string): Promise<string> {
  const { checkpoints } = await withJobs(cluster, (jobs) => jobs.listCheckpoints({ jobId }));
  const [newest] = checkpoints;
  if (!newest) throw new Error(`${jobId} has no checkpoint`);
  return `${newest.step} ${newest.digest}`;
}
