import { SegueError, type JobFailure, type JobSpec, type Ledger } from "@segue/core";

/** Failures without a commit in between after which a job is given up. */
export const MAX_FAILURES = 5;
/** Likewise, of failures of one kind in a row that are the members' own: what fails by itself three times fails for ever. */
export const MAX_SAME_FAILURES = 3;

/** What ended a generation. */
export interface MemberFailure {
  readonly code: string;
  readonly message: string;
  /** Whether the member told it of itself, not of a peer or the network. */
  readonly isOwn: boolean;
}

/** The last failure, and how many generations in a row it has ended without a commit in between. */
export interface FailureRun extends MemberFailure {
  readonly times: number;
}

/** @param failures since the last commit, without this one */
export function extendedRun(run: FailureRun | undefined, failure: MemberFailure, failures: number): FailureRun {
  const isSame = failures > 0 && run?.code === failure.code && run.message === failure.message && run.isOwn && failure.isOwn;
  return { ...failure, times: isSame ? run.times + 1 : 1 };
}

/** Failures without a commit in between after which a job is given up, by what the last ones were. */
export function mostFailures(run: FailureRun | undefined): number {
  return run && run.times >= MAX_SAME_FAILURES ? MAX_SAME_FAILURES : MAX_FAILURES;
}

export interface FailureContext {
  readonly spec: JobSpec;
  readonly ledger: Ledger;
  readonly lastFailure: SegueError | undefined;
  readonly run: FailureRun | undefined;
  /** A worker's device in words, as far as it is known. */
  readonly deviceOf: (workerId: string) => string | undefined;
}

/** Why a job failed, for its reason and the log. */
export function jobFailure(failure: JobFailure, context: FailureContext): SegueError {
  const { ledger, lastFailure, run, deviceOf, spec } = context;
  switch (failure.reason) {
    case "tooManyFailures": {
      const same = run && run.times >= MAX_SAME_FAILURES ? `, the last ${run.times} of them the same` : "";
      const message = `gave up after ${ledger.failures} failures without a step${same}; the last: ${lastFailure?.message ?? ""}`;
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
