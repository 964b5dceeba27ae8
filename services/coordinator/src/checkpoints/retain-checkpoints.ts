import type { CheckpointsSpec } from "@segue/core";
import type { Logger } from "@segue/runtime";
import type { DueEvaluations } from "../evaluations/due-evaluations.js";
import type { JobMetrics } from "../metrics/job-metrics.js";
import type { CheckpointStore } from "./checkpoint-store.js";

export interface RetainCheckpointsOptions {
  readonly jobId: string;
  readonly checkpoints: CheckpointStore;
  readonly policy: Pick<CheckpointsSpec, "keepLast" | "keepEvery">;
  readonly evaluations: Pick<DueEvaluations, "isNeeded">;
  readonly metrics: JobMetrics;
  readonly logger: Logger;
}

/**
 * Deletes the checkpoints of a job that the policy does not keep and no evaluation waits for. Errors are logged.
 * @returns how many were deleted
 */
export async function retainCheckpoints(options: RetainCheckpointsOptions): Promise<number> {
  const { jobId, checkpoints, policy, evaluations, metrics, logger } = options;
  try {
    const deleted = await checkpoints.retain(policy, (step) => evaluations.isNeeded(jobId, step));
    for (const step of deleted) {
      metrics.checkpointDeleted(jobId, step);
      logger.debug({ event: "checkpointDeleted", jobId, step }, "an old checkpoint is deleted");
    }
    return deleted.length;
  } catch (error) {
    logger.warn({ event: "checkpointNotDeleted", jobId, err: error }, "old checkpoints could not be deleted");
    return 0;
  }
}
