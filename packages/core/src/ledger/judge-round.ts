import type { Ledger, LedgerRound, MemberDigest, MemberReport } from "./ledger.js";

/** What the weights of a reported round say of its members. */
export type Judgement =
  | { readonly type: "agreed"; readonly weightsDigest: string }
  /** More than half have `weightsDigest`; `minority`: those that have something else. */
  | { readonly type: "outvoted"; readonly weightsDigest: string; readonly minority: readonly MemberDigest[] }
  | { readonly type: "disputed"; readonly workers: readonly MemberDigest[] };

/** What each member has reported of a round. */
export function reportsByWorker(round: LedgerRound | undefined): ReadonlyMap<string, MemberReport> {
  return new Map((round?.reports ?? []).map((report) => [report.workerId, report]));
}

/** Compares the digests of all members that have reported, in order of members. */
export function judgeDigests(ledger: Ledger): Judgement {
  const reports = reportsByWorker(ledger.round);
  const workers = ledger.members.flatMap(({ workerId }): MemberDigest[] => {
    const weightsDigest = reports.get(workerId)?.weightsDigest;
    return weightsDigest === undefined ? [] : [{ workerId, weightsDigest }];
  });
  const votes = new Map<string, number>();
  for (const { weightsDigest } of workers) votes.set(weightsDigest, (votes.get(weightsDigest) ?? 0) + 1);
  const majority = [...votes].find(([, count]) => 2 * count > workers.length)?.[0];
  if (majority === undefined) return { type: "disputed", workers };
  const minority = workers.filter(({ weightsDigest }) => weightsDigest !== majority);
  return minority.length === 0
    ? { type: "agreed", weightsDigest: majority }
    : { type: "outvoted", weightsDigest: majority, minority };
}

export interface DivergedStep {
  /** 0-based. */
  readonly step: number;
  /** Sum over the shards that were reported. */
  readonly lossSum: number;
  readonly gradientNorm: number;
}

/** The first step of a reported round whose loss or gradient norm is no finite number; undefined when all are. */
export function divergedStep({ members, round }: Ledger): DivergedStep | undefined {
  if (!round) return undefined;
  const reports = reportsByWorker(round);
  for (let step = round.firstStep; step < round.firstStep + round.steps; step++) {
    const results = members.flatMap(({ workerId }) => {
      return reports.get(workerId)?.results.filter((result) => result.step === step) ?? [];
    });
    const lossSum = results.flatMap(({ shardLossSums }) => shardLossSums).reduce((sum, value) => sum + value, 0);
    const norms = results.map(({ gradientNorm }) => gradientNorm);
    const gradientNorm = norms.find((norm) => !Number.isFinite(norm)) ?? norms[0] ?? 0;
    if (!Number.isFinite(lossSum) || !Number.isFinite(gradientNorm)) return { step, lossSum, gradientNorm };
  }
  return undefined;
}
