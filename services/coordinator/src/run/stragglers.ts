import { reportsByWorker, type LedgerMember, type LedgerRound } from "@segue/core";

export interface WorkerPace {
  /** Milliseconds of computing one shard of one step, smoothed over rounds. */
  readonly shardMs: number;
  /** Rounds in a row in which it took too long. */
  readonly slowRounds: number;
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
    const results = reports.get(workerId)?.results ?? [];
    const computeMs = results.reduce((sum, result) => sum + result.computeMs, 0);
    return { workerId, shardMs: computeMs / (round.steps * shards.length) };
  });
  const sorted = measured.sort((a, b) => a.shardMs - b.shardMs).map(({ shardMs }) => shardMs);
  return new Map(
    measured.map(({ workerId, shardMs }, rank) => {
      const before = paces.get(workerId);
      const isSlow = factor > 0 && sorted.length > 1 && shardMs > factor * medianWithout(sorted, rank);
      return [
        workerId,
        {
          shardMs: before ? 0.5 * before.shardMs + 0.5 * shardMs : shardMs,
          slowRounds: isSlow ? (before?.slowRounds ?? 0) + 1 : 0,
        },
      ];
    }),
  );
}

export function isStraggler(pace: WorkerPace | undefined): boolean {
  return pace !== undefined && pace.slowRounds >= SLOW_ROUNDS;
}

/** The median of a sorted list less the value at one rank. */
function medianWithout(sorted: readonly number[], rank: number): number {
  const count = sorted.length - 1;
  const other = (index: number): number => sorted[index < rank ? index : index + 1] ?? 0;
  const middle = Math.floor(count / 2);
  return count % 2 === 1 ? other(middle) : (other(middle - 1) + other(middle)) / 2;
}
