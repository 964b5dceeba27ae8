import { randomBytes } from "node:crypto";
import { mostLaneTokensPerStep, parseJobSpec, SegueError, validateJobSpec, type JobSpec, type ParsedSpec } from "@segue/core";
import type { SubmitJobRequest } from "@segue/protocol";
import { jobSpecInputFromProto } from "@segue/runtime";
import type { DataPlan, DataSource } from "../feed/step-cutter.js";
import type { JobRecord } from "./job-record.js";
import { planWarnings } from "./plan-data.js";

/** Largest Segments message, with room to spare below the wire's 16 MiB. */
const MAX_SEGMENTS_BYTES = 15 * 2 ** 20;
/** Token, label, weight and reset of one position. */
const BYTES_PER_POSITION = 4 + 4 + 4 + 1;

export interface PlannedJob extends ParsedSpec {
  /** What the documents give; undefined: not known, or they never end. */
  readonly plan: DataPlan | undefined;
}

/**
 * A parsed spec with what only its data can say, and what its documents come to.
 * @throws SegueError SPEC_INVALID
 */
export async function planJob(parsed: ParsedSpec, data: DataSource): Promise<PlannedJob> {
  const { spec, warnings } = await data.prepare(parsed.spec);
  checkMessageSize(spec);
  const plan = await data.plan?.(spec);
  return { spec, plan, warnings: [...parsed.warnings, ...warnings, ...planWarnings(spec, plan)] };
}

/** The part of a job's record that a plan settles; an estimate is none. */
export function plannedSteps({ spec, plan }: PlannedJob): Pick<JobRecord, "dataSteps"> {
  const isSettled = plan?.basis === "EXACT" && spec.schedule.revision > 1 && plan.steps < spec.train.steps;
  return isSettled ? { dataSteps: plan.steps } : {};
}

/** Readable, unique, and fit for file names, Redis keys and queue ids. */
export function newJobId(name: string): string {
  const slug = name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 40);
  return `${slug === "" ? "job" : slug}-${randomBytes(4).toString("hex")}`;
}

/**
 * The spec of a request, before anybody has looked at its data.
 * @throws SegueError SPEC_INVALID, SPEC_MISSING
 */
export function requestedSpec({ source }: SubmitJobRequest): ParsedSpec {
  switch (source.case) {
    case "yaml":
      return parseJobSpec(source.value);
    case "spec":
      return validateJobSpec(jobSpecInputFromProto(source.value));
    case undefined:
      throw new SegueError("SPEC_MISSING", "Give a job spec, as yaml or as spec.");
  }
}

/** One worker's segments of one step travel in one message. */
function checkMessageSize({ batch, tbptt, workers }: JobSpec): void {
  const shards = Math.ceil(batch.shards / workers.min);
  const bytes = shards * batch.lanesPerShard * mostLaneTokensPerStep(tbptt) * BYTES_PER_POSITION;
  if (bytes <= MAX_SEGMENTS_BYTES) return;
  const min = Math.ceil((workers.min * bytes) / MAX_SEGMENTS_BYTES);
  const description = `a step of one worker would be ${bytes} bytes; raise workers.min to ${min} or make the batch smaller`;
  throw new SegueError("SPEC_INVALID", `batch: ${description}`, { violations: [{ field: "batch", description }] });
}
