import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseEventLog, type EventLogEntry } from "@segue/core";

/** All entries of a job's event log, in order. */
export async function readEntries(store: string, jobId: string): Promise<EventLogEntry[]> {
  const folder = join(store, "jobs", jobId, "events");
  const entries: EventLogEntry[] = [];
  for (const name of (await readdir(folder)).sort()) entries.push(...parseEventLog(await readFile(join(folder, name), "utf8")));
  return entries;
}

/** The ledger events among them. */
export async function readEvents(store: string, jobId: string): Promise<Extract<EventLogEntry, { kind: "event" }>[]> {
  return (await readEntries(store, jobId)).filter((entry) => entry.kind === "event");
}
