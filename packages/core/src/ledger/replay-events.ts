import type { JobSpec } from "../spec/job-spec.js";
import { apply } from "./apply.js";
import { eventsOf } from "./compact-log.js";
import { ledgerMark, type EventLogEntry, type LedgerMark } from "./event-log.js";
import type { Ledger, LedgerEvent } from "./ledger.js";

/** A committed round boundary as the log has it. */
export interface CommittedStep {
  /** Where its round began. */
  readonly firstStep: number;
  readonly step: number;
  readonly weightsDigest: string;
  /** In force for the steps up to this one. */
  readonly spec: JobSpec;
}

export interface ReplayProblem {
  readonly seq: number;
  readonly description: string;
}

export interface EventReplay {
  readonly events: number;
  /** Sequence numbers that are missing: lines that could not be written, or files that were deleted for their age. */
  readonly missing: readonly { readonly from: number; readonly to: number }[];
  /** Empty: every event led to the state that was recorded, and no step was committed twice with different weights. */
  readonly problems: readonly ReplayProblem[];
  /** What counts in the end, in ascending order. */
  readonly commits: readonly CommittedStep[];
}

/** Applies the recorded events again, from the first `opened` on, and compares every state with the recorded one. Pure. */
export function replayEvents(entries: readonly EventLogEntry[]): EventReplay {
  const problems: ReplayProblem[] = [];
  const missing: { from: number; to: number }[] = [];
  const commits = new Map<number, CommittedStep>();
  let ledger: Ledger | undefined;
  let spec: JobSpec | undefined;
  let specChanged = false;
  let events = 0;
  let nextSeq = entries[0]?.seq ?? 1;
  for (const entry of entries) {
    if (entry.seq !== nextSeq) {
      missing.push({ from: nextSeq, to: entry.seq - 1 });
      ledger = undefined;
    }
    nextSeq = entry.seq + 1;
    switch (entry.kind) {
      case "opened":
        if (entry.cause === "rotation" && ledger) compare(entry.seq, ledgerMark(ledger), ledgerMark(entry.ledger));
        ledger = entry.ledger;
        spec = entry.spec;
        break;
      case "specChanged":
        specChanged = true;
        break;
      case "paused":
        break;
      default:
        if (!ledger || !spec) break;
        ledger = replayEntry(entry.seq, eventsOf(entry, ledger), ledger, spec);
        if (ledger) compare(entry.seq, ledgerMark(ledger), entry.after);
    }
  }
  return { events, missing, problems, commits: [...commits.values()].sort((a, b) => a.step - b.step) };

  /** undefined after an event that cannot have happened. */
  function replayEntry(seq: number, happened: readonly LedgerEvent[], from: Ledger, inForce: JobSpec): Ledger | undefined {
    let reached = from;
    for (const event of happened) {
      const before = reached;
      events++;
      try {
        reached = apply(before, event);
      } catch (error) {
        problems.push({ seq, description: error instanceof Error ? error.message : String(error) });
        return undefined;
      }
      if (event.type === "restored" && specChanged) {
        // Steps that are trained again under another spec need not come out as before.
        for (const step of commits.keys()) if (step > reached.step) commits.delete(step);
        specChanged = false;
      }
      if (event.type === "roundCommitted") commit(seq, before.step, reached, inForce);
    }
    return reached;
  }

  function compare(seq: number, reached: LedgerMark, recorded: LedgerMark): void {
    const differing = (Object.keys(reached) as (keyof LedgerMark)[]).filter((key) => reached[key] !== recorded[key]);
    if (differing.length === 0) return;
    const details = differing.map((key) => `${key} is ${reached[key]} and was recorded as ${recorded[key]}`);
    problems.push({ seq, description: `the ledger differs: ${details.join(", ")}` });
  }

  function commit(seq: number, firstStep: number, { step, weightsDigest }: Ledger, inForce: JobSpec): void {
    const earlier = commits.get(step);
    if (earlier && earlier.weightsDigest !== weightsDigest) {
      problems.push({
        seq,
        description: `step ${step} was committed with weights ${earlier.weightsDigest} and again with ${weightsDigest}`,
      });
    }
    commits.set(step, { firstStep, step, weightsDigest, spec: inForce });
  }
}
