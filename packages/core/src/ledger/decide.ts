import { divergedStep, judgeDigests, type DivergedStep } from "./judge-round.js";
import { isHeldBy, type Ledger, type MemberDigest } from "./ledger.js";

/**
 * What people and circumstances want of a job. `run`: train. `settle`: stop at the next round boundary (pause, shutdown).
 * `abandon`: stop now, the round in flight is void.
 */
export type Intent = "run" | "settle" | "abandon";

export interface Circumstances {
  readonly intent: Intent;
  /** Workers that the job may use, in the order they should be used; neither lost nor draining. */
  readonly available: readonly string[];
  readonly minWorkers: number;
  readonly maxWorkers: number;
  /** Failures without a commit in between after which the job is given up. */
  readonly maxFailures: number;
}

export type Decision =
  | { readonly type: "wait" }
  /** Form a generation of these workers at the committed step. */
  | { readonly type: "form"; readonly workerIds: readonly string[] }
  /** Nobody holds all of the committed step: go back to the newest checkpoint. */
  | { readonly type: "restore" }
  /** Too few workers are left: end the membership and wait for more. */
  | { readonly type: "dissolve" }
  | { readonly type: "startRound" }
  | { readonly type: "commit" }
  /** Nothing is in flight (or it is abandoned): the job rests at the committed step. */
  | { readonly type: "stop" }
  | { readonly type: "finish" }
  /** Most members agree on the weights after the round; these do not, and must go. */
  | { readonly type: "expel"; readonly workers: readonly MemberDigest[]; readonly weightsDigest: string }
  /** The members do not agree, for the first time at this step: the round runs again from what they agreed on before. */
  | { readonly type: "dispute"; readonly workers: readonly MemberDigest[] }
  | { readonly type: "fail"; readonly failure: JobFailure };

export type JobFailure =
  | { readonly reason: "digestMismatch"; readonly workers: readonly MemberDigest[] }
  | { readonly reason: "tooManyFailures" }
  /** Loss or gradients are no numbers any more; the round is not committed. */
  | { readonly reason: "diverged"; readonly diverged: DivergedStep };

/** A second dispute at the same step is no accident. */
const MAX_DISPUTES = 1;

/** What to do next; `wait` until an event changes the ledger or the circumstances. */
export function decide(ledger: Ledger, circumstances: Circumstances): Decision {
  const { intent, minWorkers } = circumstances;
  if (intent === "abandon") return { type: "stop" };
  switch (ledger.phase) {
    case "running":
      return { type: "wait" };
    case "reported":
      return judgeRound(ledger);
    case "none":
    case "joining":
    case "ready":
      break;
  }
  const isDurable = ledger.durableStep === ledger.step;
  if (ledger.step >= ledger.totalSteps && (ledger.phase === "ready" || isDurable)) return { type: "finish" };
  if (intent === "settle") return { type: "stop" };
  if (ledger.phase === "joining") return { type: "wait" };
  const wanted = chooseMembers(ledger, circumstances);
  if (ledger.phase === "none") {
    if (ledger.failures >= circumstances.maxFailures) return { type: "fail", failure: { reason: "tooManyFailures" } };
    if (wanted.length < minWorkers) return { type: "wait" };
    if (!isDurable && !isHeldBy(ledger)) return { type: "restore" };
    return { type: "form", workerIds: wanted };
  }
  if (wanted.length < minWorkers) return { type: "dissolve" };
  return sameMembers(ledger, wanted) ? { type: "startRound" } : { type: "form", workerIds: wanted };
}

function judgeRound(ledger: Ledger): Decision {
  // Before the digests: weights that are no numbers need not even be equal.
  const diverged = divergedStep(ledger);
  if (diverged) return { type: "fail", failure: { reason: "diverged", diverged } };
  const judgement = judgeDigests(ledger);
  switch (judgement.type) {
    case "agreed":
      return { type: "commit" };
    case "outvoted":
      return { type: "expel", workers: judgement.minority, weightsDigest: judgement.weightsDigest };
    case "disputed": {
      const { workers } = judgement;
      if (ledger.disputes < MAX_DISPUTES) return { type: "dispute", workers };
      return { type: "fail", failure: { reason: "digestMismatch", workers } };
    }
  }
}

/** Up to the maximum: present members keep their places, newcomers follow. */
function chooseMembers(ledger: Ledger, { available, maxWorkers }: Circumstances): string[] {
  const usable = new Set(available);
  const present = ledger.members.map(({ workerId }) => workerId).filter((workerId) => usable.has(workerId));
  const taken = new Set(present);
  const others = available.filter((workerId) => !taken.has(workerId));
  const held = new Set(ledger.holders);
  const holders = others.filter((workerId) => held.has(workerId));
  const newcomers = others.filter((workerId) => !held.has(workerId));
  return [...present, ...holders, ...newcomers].slice(0, Math.min(maxWorkers, ledger.shards));
}

function sameMembers(ledger: Ledger, workerIds: readonly string[]): boolean {
  return ledger.members.length === workerIds.length && ledger.members.every(({ workerId }, index) => workerId === workerIds[index]);
}
