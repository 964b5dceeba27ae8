import { storedJobSpec } from "@segue/core";
import type { CheckpointMirror } from "../checkpoints/checkpoint-mirror.js";
import type { JobRecord } from "./job-record.js";

/**
 * Records of the jobs that only the mirror knows, as on a new machine: paused at their newest checkpoint, because the machine that trained
 * them last may still be at it. Whoever resumes one knows better.
 */
export function mirroredJobs(mirror: CheckpointMirror, isKnown: (jobId: string) => boolean): JobRecord[] {
  return mirror.jobIds.flatMap((jobId) => {
    const manifests = mirror.manifests(jobId);
    const steps = [...manifests.keys()].sort((a, b) => b - a);
    const whole = steps.find((step) => mirror.damageOf(jobId, step) === undefined);
    const manifest = manifests.get(whole ?? steps[0] ?? NaN);
    if (!manifest || isKnown(jobId)) return [];
    const { createdAtMs, step: checkpointStep } = manifest;
    const spec = storedJobSpec(manifest.spec);
    const times = { submittedAtMs: createdAtMs, updatedAtMs: createdAtMs };
    const at = whole === undefined ? "without a whole checkpoint" : `at step ${whole}`;
    const reason = `found in ${mirror.url} ${at}; resume it when no other coordinator trains it`;
    return [{ jobId, spec, phase: "PAUSED", reason, attempt: 0, checkpointStep, ...times }];
  });
}
