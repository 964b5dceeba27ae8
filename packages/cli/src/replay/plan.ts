import { SegueError, type CommittedStep, type JobSpec } from "@segue/core";

/** Steps that are computed under one spec. */
export interface ReplaySection {
  readonly start: number;
  readonly end: number;
  readonly spec: JobSpec;
}

export interface ReplayRange {
  /** Where computing starts: the step of a checkpoint, or 0. */
  readonly start: number;
  readonly end: number;
  /** From `start` to `end`; the job was edited between one and the next. */
  readonly sections: readonly ReplaySection[];
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
  return { start, end: final.step, sections: sectionsOf(start, compared), commits: compared };
}

/** A job is edited while it is paused, so between two rounds. */
function sectionsOf(start: number, commits: readonly CommittedStep[]): ReplaySection[] {
  const sections: ReplaySection[] = [];
  for (const { firstStep, step, spec } of commits) {
    const last = sections.at(-1);
    if (last && JSON.stringify(last.spec) === JSON.stringify(spec)) {
      sections[sections.length - 1] = { ...last, end: step };
      continue;
    }
    const begin = last?.end ?? start;
    if (last && firstStep !== begin) {
      const where = `between the steps ${begin} and ${firstStep}, of which no rounds are recorded`;
      throw invalid(`the job was edited ${where}; replay up to there (--to ${begin}) or from a later checkpoint`);
    }
    sections.push({ start: begin, end: step, spec });
  }
  return sections;
}

function invalid(message: string): SegueError {
  return new SegueError("REPLAY_RANGE_INVALID", `These steps cannot be computed again: ${message}.`);
}
