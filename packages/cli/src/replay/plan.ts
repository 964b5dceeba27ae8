import { SegueError, type CommittedStep, type JobSpec } from "@segue/core";

export interface ReplayRange {
  /** Where computing starts: the step of a checkpoint, or 0. */
  readonly start: number;
  readonly end: number;
  readonly spec: JobSpec;
  /** Round boundaries after `start` up to `end` whose weights are compared, ascending. */
  readonly commits: readonly CommittedStep[];
}

export interface RangeRequest {
  readonly commits: readonly CommittedStep[];
  readonly checkpoints: readonly number[];
  /** First step whose weights are compared. @default as little as can be computed: after the last checkpoint before `to` */
  readonly from?: number | undefined;
  /** @default the last committed step */
  readonly to?: number | undefined;
}

/**
 * What is computed again. Pure.
 * @throws SegueError REPLAY_RANGE_INVALID saying which steps there are
 */
export function planReplay({ commits, checkpoints, from, to }: RangeRequest): ReplayRange {
  const last = commits.at(-1)?.step ?? 0;
  const end = to ?? last;
  const wanted = commits.filter(({ step }) => step <= end && step >= (from ?? 0));
  const first = wanted[0];
  const final = wanted.at(-1);
  if (!first || !final) throw invalid(`no round boundary is recorded from step ${from ?? 0} to ${end}; the last is step ${last}`);
  const starts = [0, ...checkpoints].filter((step) => step < (from === undefined ? final.step : first.step));
  const start = Math.max(...starts);
  const compared = commits.filter(({ step }) => step > start && step <= end);
  const { spec } = final;
  const edited = compared.find((commit) => JSON.stringify(commit.spec) !== JSON.stringify(spec));
  if (edited) {
    const after = Math.max(
      ...compared.flatMap(({ step, spec: other }) => (JSON.stringify(other) === JSON.stringify(spec) ? [] : [step])),
    );
    throw invalid(`the job was edited after step ${after}; replay up to there (--to ${after}) and from a later checkpoint`);
  }
  return { start, end: final.step, spec, commits: compared };
}

function invalid(message: string): SegueError {
  return new SegueError("REPLAY_RANGE_INVALID", `These steps cannot be computed again: ${message}.`);
}
