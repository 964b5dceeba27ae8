import { digestDisagreement } from "./apply.js";
import type { Ledger } from "./ledger.js";

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
  /** Nobody holds the committed step: go back to the newest checkpoint. */
  | { readonly type: "restore" }
  /** Too few workers are left: end the membership and wait for more. */
  | { readonly type: "dissolve" }
  | { readonly type: "startRound" }
  | { readonly type: "commit" }
  /** Nothing is in flight (or it is abandoned): the job rests at the committed step. */
  | { readonly type: "stop" }
  | { readonly type: "finish" }
  | {
      readonly type: "fail";
      readonly reason: "digestMismatch" | "tooManyFailures";
      readonly workers: readonly { readonly workerId: string; readonly weightsDigest: string }[];
    };

/** What to do next; `wait` until an event changes the ledger or the circumstances. */
export function decide(ledger: Ledger, circumstances: Circumstances): Decision {
  const { intent, minWorkers } = circumstances;
  if (intent === "abandon") return { type: "stop" };
  switch (ledger.phase) {
    case "running":
      return { type: "wait" };
    case "reported": {
      const workers = digestDisagreement(ledger);
      return workers ? { type: "fail", reason: "digestMismatch", workers } : { type: "commit" };
    }
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
    if (ledger.failures >= circumstances.maxFailures) return { type: "fail", reason: "tooManyFailures", workers: [] };
    if (wanted.length < minWorkers) return { type: "wait" };
    if (!isDurable && ledger.holders.length === 0) return { type: "restore" };
    return { type: "form", workerIds: wanted };
  }
  if (wanted.length < minWorkers) return { type: "dissolve" };
  return sameMembers(ledger, wanted) ? { type: "startRound" } : { type: "form", workerIds: wanted };
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
