import { storedJobSpec } from "@segue/core";
import type { CheckpointMirror } from "../checkpoints/checkpoint-mirror.js";
import type { JobRecord } from "./job-record.js";

/**
 * Records of the jobs that only the mirror knows, as on a new machine: paused at their newest checkpoint, because the machine that trained
 * them last may still be at it. Whoever resumes one knows better.
 */
export function mirroredJobs(mirror: CheckpointMirror, isKnown: (jobId: string) => boolean): JobRecord[] {
  return mirror.jobIds.flatMap((jobId) => {
    const newest = Math.max(...mirror.manifests(jobId).keys());
    const manifest = mirror.manifests(jobId).get(newest);
    if (!manifest || isKnown(jobId)) return [];
    const { step, createdAtMs } = manifest;
    const spec = storedJobSpec(manifest.spec);
    const reason = `found in ${mirror.url} at step ${step}; resume it when no other coordinator trains it`;
    return [{ jobId, spec, phase: "PAUSED", reason, attempt: 0, submittedAtMs: createdAtMs, updatedAtMs: createdAtMs }];
  });
}
