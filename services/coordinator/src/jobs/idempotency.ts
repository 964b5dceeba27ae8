import { SegueError, type JobSpec } from "@segue/core";
import { canonicalJson } from "../checkpoints/manifest.js";
import type { JobRecord } from "./job-record.js";

/**
 * A key belongs to the spec it came with first.
 * @param job whose key it is; what was edited since does not count
 * @param requested as it was parsed, its vocabulary perhaps still that of a tokenizer file
 * @throws SegueError IDEMPOTENCY_KEY_REUSED naming the settings that differ
 */
export function refuseOtherSpec(job: Pick<JobRecord, "spec" | "submittedSpec">, requested: JobSpec, whose: string): void {
  const submitted = job.submittedSpec ?? job.spec;
  const vocab = requested.model.vocab === 0 ? submitted.model.vocab : requested.model.vocab;
  const differing = differingSettings(submitted, { ...requested, model: { ...requested.model, vocab } });
  if (differing.length === 0) return;
  const settings = differing.slice(0, 5).join(", ") + (differing.length > 5 ? ` and ${differing.length - 5} more` : "");
  const message =
    `The idempotency key belongs to ${whose}, which was submitted with another spec: ${settings} differ. ` +
    "Submit this spec with a key of its own.";
  throw new SegueError("IDEMPOTENCY_KEY_REUSED", message, { status: "ALREADY_EXISTS" });
}

/** Paths of the settings that are not equal; lists count as one setting. */
function differingSettings(a: unknown, b: unknown, path = ""): string[] {
  if (!isSection(a) || !isSection(b)) return canonicalJson({ a }) === canonicalJson({ a: b }) ? [] : [path];
  const names = [...new Set([...Object.keys(a), ...Object.keys(b)])];
  return names.flatMap((name) => differingSettings(a[name], b[name], path === "" ? name : `${path}.${name}`));
}

function isSection(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
