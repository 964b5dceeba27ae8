import { reportsByWorker, type LedgerMember, type LedgerRound, type RoundReport } from "@segue/core";

/** Where the time of one step goes on one worker, in milliseconds. */
export interface StepTimes {
  readonly computeMs: number;
  /** Waiting for the others' gradients after the own ones. */
  readonly exchangeMs: number;
  /** Everything else: ends of rounds, hashing, waiting for the coordinator. */
  readonly restMs: number;
}

export interface WorkerPace {
  /** Milliseconds of computing one shard of one step, smoothed over rounds. */
  readonly shardMs: number;
  /** Rounds in a row in which it took too long. */
  readonly slowRounds: number;
  /** Smoothed over rounds. */
  readonly stepTimes: StepTimes;
}

/** One slow round is a hiccup. */
const SLOW_ROUNDS = 3;

/**
 * The members' paces after a committed round. A member is slow when it takes more than `factor` times the median of the others. Only time
 * of computing counts, since whoever waits for a slow peer is not slow. Pure.
 */
export function updatedPaces(
  paces: ReadonlyMap<string, WorkerPace>,
  members: readonly LedgerMember[],
  round: LedgerRound,
  factor: number,
): Map<string, WorkerPace> {
  const reports = reportsByWorker(round);
  const measured = members.map(({ workerId, shards }) => {
    const stepTimes = stepTimesOf(reports.get(workerId), round.steps);
    return { workerId, stepTimes, shardMs: stepTimes.computeMs / shards.length };
  });
  const sorted = measured.sort((a, b) => a.shardMs - b.shardMs).map(({ shardMs }) => shardMs);
  return new Map(
    measured.map(({ workerId, shardMs, stepTimes }, rank) => {
      const before = paces.get(workerId);
      const isSlow = factor > 0 && sorted.length > 1 && shardMs > factor * medianWithout(sorted, rank);
      return [
        workerId,
        {
          shardMs: smoothed(before?.shardMs, shardMs),
          slowRounds: isSlow ? (before?.slowRounds ?? 0) + 1 : 0,
          stepTimes: {
            computeMs: smoothed(before?.stepTimes.computeMs, stepTimes.computeMs),
            exchangeMs: smoothed(before?.stepTimes.exchangeMs, stepTimes.exchangeMs),
            restMs: smoothed(before?.stepTimes.restMs, stepTimes.restMs),
          },
        },
      ];
    }),
  );
}

export function isStraggler(pace: WorkerPace | undefined): boolean {
  return pace !== undefined && pace.slowRounds >= SLOW_ROUNDS;
}

/** The first step of a round may have been computed before the round was asked for: no rest is less than none. */
function stepTimesOf(report: RoundReport | undefined, steps: number): StepTimes {
  const results = report?.results ?? [];
  const computeMs = results.reduce((sum, result) => sum + result.computeMs, 0) / steps;
  const exchangeMs = results.reduce((sum, result) => sum + result.exchangeMs, 0) / steps;
  return { computeMs, exchangeMs, restMs: Math.max(0, (report?.elapsedMs ?? 0) / steps - computeMs - exchangeMs) };
}

function smoothed(before: number | undefined, now: number): number {
  return before === undefined ? now : 0.5 * before + 0.5 * now;
}

/** The median of a sorted list less the value at one rank. */
function medianWithout(sorted: readonly number[], rank: number): number {
  const count = sorted.length - 1;
  const other = (index: number): number => sorted[index < rank ? index : index + 1] ?? 0;
  const middle = Math.floor(count / 2);
  return count % 2 === 1 ? other(middle) : (other(middle - 1) + other(middle)) / 2;
}
