import type { LedgerMember, LedgerRound } from "@segue/core";

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
  const measured = members.map(({ workerId, shards }) => {
    const results = round.reports[workerId]?.results ?? [];
    const computeMs = results.reduce((sum, result) => sum + result.computeMs, 0);
    return { workerId, shardMs: computeMs / (round.steps * shards.length) };
  });
  return new Map(
    measured.map(({ workerId, shardMs }) => {
      const before = paces.get(workerId);
      const others = measured.filter((other) => other.workerId !== workerId).map((other) => other.shardMs);
      const isSlow = factor > 0 && others.length > 0 && shardMs > factor * median(others);
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

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2;
}
