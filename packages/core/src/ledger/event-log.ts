import type { JobSpec } from "../spec/job-spec.js";
import type { Ledger, LedgerEvent } from "./ledger.js";

/**
 * One line of a job's event log. A file begins with `opened`, the whole ledger and the spec in force: when training starts on a
 * coordinator, when the file before it is full, and after lines that could not be written.
 */
export type EventLogEntry = { readonly seq: number; readonly atMs: number } & EventLogContent;

export type EventLogContent =
  | { readonly kind: "opened"; readonly cause: "start" | "rotation" | "gap"; readonly spec: JobSpec; readonly ledger: Ledger }
  /** Members (absent: all of the generation) have come to `step`, one after the other. */
  | {
      readonly kind: "ready";
      readonly generation: number;
      readonly step: number;
      readonly workers?: readonly string[];
      readonly after: LedgerMark;
    }
  /** Members (absent: all of the generation) have reported the round in flight, one after the other, with the same weights. */
  | {
      readonly kind: "reported";
      readonly generation: number;
      readonly firstStep: number;
      readonly steps: number;
      readonly weightsDigest: string;
      readonly workers?: readonly string[];
      readonly after: LedgerMark;
    }
  /** A round from where the ledger stands, reported by all members with the same weights and committed. */
  | { readonly kind: "round"; readonly steps: number; readonly weightsDigest: string; readonly after: LedgerMark }
  /** Any other event, and in logs of earlier versions every one. `after`: what the ledger came to. */
  | { readonly kind: "event"; readonly event: LedgerEvent; readonly after: LedgerMark }
  /** The job has come to rest: on request, or because what `code` says is not there. */
  | { readonly kind: "paused"; readonly reason: string; readonly code?: string }
  /** Settings of the paused job were changed, by path; they count from its next step on. */
  | { readonly kind: "specChanged"; readonly changes: Readonly<Record<string, SettingChange>> };

export interface SettingChange {
  readonly from: unknown;
  readonly to: unknown;
}

/** What must be equal when the log is replayed. */
export type LedgerMark = Pick<
  Ledger,
  "phase" | "step" | "totalSteps" | "durableStep" | "generation" | "weightsDigest" | "failures" | "disputes"
>;

export function ledgerMark(ledger: Ledger): LedgerMark {
  const { phase, step, totalSteps, durableStep, generation, weightsDigest, failures, disputes } = ledger;
  return { phase, step, totalSteps, durableStep, generation, weightsDigest, failures, disputes };
}

/**
 * The entries of one file. Its last line may be torn, since its writer may have been killed; it is left out.
 * @throws SyntaxError when another line is damaged
 */
export function parseEventLog(text: string): EventLogEntry[] {
  // What follows the last newline is torn, even if it is a whole line: the next writer starts a new file.
  const lines = text.slice(0, text.lastIndexOf("\n") + 1).split("\n");
  return lines.slice(0, -1).map((line) => JSON.parse(line) as EventLogEntry);
}
