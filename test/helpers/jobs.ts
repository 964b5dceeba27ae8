import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { LocalCluster } from "@segue/cli";
import { until } from "./patience.js";
import { runSegue, segueJson, type Scratch } from "./clusters.js";

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

/** Waits as a person would, with `segue watch`. @throws Error when the job does not succeed */
export async function waitForSuccess(cluster: LocalCluster, jobId: string): Promise<JobRow> {
  const { status, stdout, stderr } = await runSegue(cluster, "watch", jobId, "--json");
  if (status !== 0) throw new Error(`segue watch ended with ${status}\n${stdout.slice(-2000)}\n${stderr}`);
  return jobOf(cluster, jobId);
}

/** Polls the job until it satisfies `done`. @throws Error when it ends before */
export async function waitForJob(cluster: LocalCluster, jobId: string, done: (job: JobRow) => boolean): Promise<JobRow> {
  let job = await jobOf(cluster, jobId);
  const arrived = async (): Promise<boolean> => {
    job = await jobOf(cluster, jobId);
    if (done(job)) return true;
    const { phase, step, reason } = job;
    if (["SUCCEEDED", "FAILED", "CANCELLED"].includes(phase)) throw new Error(`${jobId} ended ${phase} at step ${step}: ${reason}`);
    return false;
  };
  await until(arrived, () => `${jobId}, which is ${job.phase} at step ${job.step}: ${job.reason}`, 100);
  return job;
}

/** Newest first. */
export function checkpointsOf(cluster: LocalCluster, jobId: string): Promise<CheckpointRow[]> {
  return segueJson<CheckpointRow[]>(cluster, "checkpoints", jobId);
}

/** The digest over weights, optimizer, lane states and cursors at the end of a job. */
export async function finalDigest(cluster: LocalCluster, jobId: string): Promise<string> {
  const [newest] = await checkpointsOf(cluster, jobId);
  if (!newest) throw new Error(`${jobId} has no checkpoint`);
  return `${newest.step} ${newest.digest}`;
}
