import { randomUUID } from "node:crypto";
import { SegueError, type JobSpec } from "@segue/core";
import type { Client, Jobs } from "@segue/protocol";
import { jobSpecToProto } from "@segue/runtime";
import { jobView, type JobView } from "../show/job-view.js";

/**
 * Submits a spec that is valid already.
 * @param idempotencyKey of the job that it is, or is to become; by default a new one, since a retry inside the connection must not submit twice
 * @throws ServiceError what the coordinator says of it
 */
export async function submitJob(jobs: Client<typeof Jobs>, spec: JobSpec, idempotencyKey: string = randomUUID()): Promise<JobView> {
  const { job } = await jobs.submitJob({ source: { case: "spec", value: jobSpecToProto(spec) }, idempotencyKey });
  if (!job) throw new SegueError("INTERNAL", "The coordinator answered without a job.", { status: "INTERNAL" });
  return jobView(job);
}
