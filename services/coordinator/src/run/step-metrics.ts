import { reportsByWorker, type LedgerMember, type LedgerRound } from "@segue/core";

/** One committed step as people see it. */
export interface StepMetrics {
  /** Steps applied after it, counting from 1. */
  readonly step: number;
  /** Weighted mean over the step. */
  readonly loss: number;
  readonly learningRate: number;
  readonly gradientNorm: number;
}

/** The metrics of a reported round: loss sums are added in the order of shards, so they do not depend on who held them. */
export function roundMetrics(
  members: readonly LedgerMember[],
  round: LedgerRound,
  totalWeightOf: (step: number) => number,
): StepMetrics[] {
  const reports = reportsByWorker(round);
  return Array.from({ length: round.steps }, (_, index) => {
    const step = round.firstStep + index;
    const results = members.map(({ workerId }) => reports.get(workerId)?.results.find((result) => result.step === step));
    // Members are listed by their first shard and hold contiguous runs.
    const lossSum = results.flatMap((result) => result?.shardLossSums ?? []).reduce((sum, value) => sum + value, 0);
    const totalWeight = totalWeightOf(step);
    return {
      step: step + 1,
      loss: totalWeight > 0 ? lossSum / totalWeight : 0,
      learningRate: results[0]?.learningRate ?? 0,
      gradientNorm: results[0]?.gradientNorm ?? 0,
    };
  });
}
