import { SegueError, type JobFailure, type JobSpec, type Ledger } from "@segue/core";

/** Failures without a commit in between after which a job is given up. */
export const MAX_FAILURES = 5;

export interface FailureContext {
  readonly spec: JobSpec;
  readonly ledger: Ledger;
  readonly lastFailure: SegueError | undefined;
  /** A worker's device in words, as far as it is known. */
  readonly deviceOf: (workerId: string) => string | undefined;
}

/** Why a job failed, for its reason and the log. */
export function jobFailure(failure: JobFailure, context: FailureContext): SegueError {
  const { ledger, lastFailure, deviceOf, spec } = context;
  switch (failure.reason) {
    case "tooManyFailures": {
      const message = `gave up after ${MAX_FAILURES} failures; the last: ${lastFailure?.message ?? ""}`;
      return new SegueError(lastFailure?.code ?? "WORKERS_FAILED", message, { status: "ABORTED" });
    }
    case "digestMismatch": {
      const sides = failure.workers.map(({ workerId, weightsDigest }) => {
        return `${workerId} (${deviceOf(workerId) ?? "gone"}) has ${weightsDigest}`;
      });
      const message = `twice after a round from step ${ledger.step} the weights differed, now: ${sides.join(", ")}`;
      return new SegueError("DIGEST_MISMATCH", message, { status: "DATA_LOSS" });
    }
    case "diverged": {
      const { step, lossSum, gradientNorm } = failure.diverged;
      const { learningRate, clipNorm } = spec.optimizer;
      const clipping = clipNorm === 0 ? "set optimizer.clipNorm (it is off)" : `lower optimizer.clipNorm (${clipNorm})`;
      const message =
        `the loss sum of step ${step + 1} is ${lossSum} and its gradient norm ${gradientNorm}; what is committed ends at step ${ledger.step}. ` +
        `Lower optimizer.learningRate (${learningRate}), lengthen schedule.warmupSteps (${spec.schedule.warmupSteps}) or ${clipping}, ` +
        "and submit the job again.";
      return new SegueError("TRAINING_DIVERGED", message, { status: "FAILED_PRECONDITION" });
    }
  }
}
