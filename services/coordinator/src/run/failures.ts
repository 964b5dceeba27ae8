import { SegueError, type Decision, type Ledger } from "@segue/core";

/** Failures without a commit in between after which a job is given up. */
export const MAX_FAILURES = 5;

export interface FailureContext {
  readonly ledger: Ledger;
  readonly lastFailure: SegueError | undefined;
  /** A worker's device in words, as far as it is known. */
  readonly deviceOf: (workerId: string) => string | undefined;
}

/** Why a job failed, for its reason and the log. */
export function jobFailure(decision: Extract<Decision, { type: "fail" }>, context: FailureContext): SegueError {
  const { ledger, lastFailure, deviceOf } = context;
  switch (decision.reason) {
    case "tooManyFailures": {
      const message = `gave up after ${MAX_FAILURES} failures; the last: ${lastFailure?.message ?? ""}`;
      return new SegueError(lastFailure?.code ?? "WORKERS_FAILED", message, { status: "ABORTED" });
    }
    case "digestMismatch": {
      const sides = decision.workers.map(({ workerId, weightsDigest }) => {
        return `${workerId} (${deviceOf(workerId) ?? "gone"}) has ${weightsDigest}`;
      });
      const message = `after a round from step ${ledger.step} the weights differ: ${sides.join(", ")}`;
      return new SegueError("DIGEST_MISMATCH", message, { status: "DATA_LOSS" });
    }
  }
}
