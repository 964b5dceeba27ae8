import { randomBytes } from "node:crypto";
import { mostLaneTokensPerStep, parseJobSpec, SegueError, validateJobSpec, type JobSpec, type ParsedSpec } from "@segue/core";
import type { SubmitJobRequest } from "@segue/protocol";
import { jobSpecInputFromProto } from "@segue/runtime";
import type { DataSource } from "../feed/step-cutter.js";

/** Largest Segments message, with room to spare below the wire's 16 MiB. */
const MAX_SEGMENTS_BYTES = 15 * 2 ** 20;
/** Token, label, weight and reset of one position. */
const BYTES_PER_POSITION = 4 + 4 + 4 + 1;

/**
 * A parsed spec with what only its data can say.
 * @throws SegueError SPEC_INVALID
 */
export async function effectiveSpec(parsed: ParsedSpec, data: DataSource): Promise<ParsedSpec> {
  const { spec, warnings } = await data.prepare(parsed.spec);
  checkMessageSize(spec);
  return { spec, warnings: [...parsed.warnings, ...warnings] };
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
