import { ledgerMark, type EventLogContent } from "./event-log.js";
import type { Ledger, LedgerEvent } from "./ledger.js";

/** What an event means for the end of a log that is not written yet. */
export interface LogChange {
  /** How many of the newest entries `content` stands for as well. */
  readonly replaces: number;
  /** undefined: nothing is recorded, since nothing has changed. */
  readonly content?: EventLogContent;
}

/**
 * How an event is recorded after `newest`, the last entries (two are enough). What all members do at a round is one entry for all of them,
 * and a round that ends well is one entry in all: so a log grows with rounds, and with members only where they differ. What is carried and
 * never judged (the results of steps) is left out. Pure.
 */
export function recordedChange(newest: readonly EventLogContent[], event: LedgerEvent, before: Ledger, after: Ledger): LogChange {
  if (after === before) return { replaces: 0 };
  const last = newest.at(-1);
  const mark = ledgerMark(after);
  switch (event.type) {
    case "memberReady": {
      const { generation, step } = event;
      const goesOn = last?.kind === "ready" && last.generation === generation && last.step === step ? last : undefined;
      const workers = [...(goesOn?.workers ?? []), event.workerId];
      const isAll = after.phase === "ready" && workers.length === after.members.length;
      const content = { kind: "ready", generation, step, ...(isAll ? {} : { workers }), after: mark } as const;
      return { replaces: goesOn ? 1 : 0, content };
    }
    case "roundReported": {
      const { generation, firstStep, steps } = event;
      const { weightsDigest } = event.report;
      const goesOn =
        last?.kind === "reported" && last.generation === generation && last.weightsDigest === weightsDigest ? last : undefined;
      const workers = [...(goesOn?.workers ?? []), event.workerId];
      const isAll = after.phase === "reported" && workers.length === after.members.length;
      const named = isAll ? {} : { workers };
      const content = { kind: "reported", generation, firstStep, steps, weightsDigest, ...named, after: mark } as const;
      return { replaces: goesOn ? 1 : 0, content };
    }
    case "roundCommitted": {
      const started = newest.at(-2);
      const isWhole =
        last?.kind === "reported" && !last.workers && started?.kind === "event" && started.event.type === "roundStarted";
      if (!isWhole) return { replaces: 0, content: { kind: "event", event, after: mark } };
      return { replaces: 2, content: { kind: "round", steps: last.steps, weightsDigest: last.weightsDigest, after: mark } };
    }
    default:
      return { replaces: 0, content: { kind: "event", event, after: mark } };
  }
}

/** The events that an entry stands for, when it comes after `ledger`. */
export function eventsOf(entry: EventLogContent, ledger: Ledger): LedgerEvent[] {
  const { generation, step: firstStep } = ledger;
  const all = ledger.members.map(({ workerId }) => workerId);
  switch (entry.kind) {
    case "opened":
    case "specChanged":
    case "paused":
      return [];
    case "event":
      return [entry.event];
    case "ready":
      return (entry.workers ?? all).map((workerId) => {
        return { type: "memberReady", generation: entry.generation, workerId, step: entry.step };
      });
    case "reported":
      return reports(entry.workers ?? all, entry.generation, entry.firstStep, entry);
    case "round": {
      const { steps } = entry;
      return [{ type: "roundStarted", steps }, ...reports(all, generation, firstStep, entry), { type: "roundCommitted" }];
    }
  }
}

function reports(
  workers: readonly string[],
  generation: number,
  firstStep: number,
  { steps, weightsDigest }: { readonly steps: number; readonly weightsDigest: string },
): LedgerEvent[] {
  const report = { weightsDigest, results: [] };
  return workers.map((workerId) => ({ type: "roundReported", generation, workerId, firstStep, steps, report }));
}
