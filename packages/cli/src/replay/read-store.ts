import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseEventLog, SegueError, type EventLogEntry } from "@segue/core";

export interface StoredJob {
  readonly jobId: string;
  /** `job.json` as it is. */
  readonly record: Readonly<Record<string, unknown>>;
  readonly entries: readonly EventLogEntry[];
  /** Steps of the checkpoints that lie in the store, ascending. */
  readonly checkpoints: readonly number[];
}

/** @throws SegueError JOB_NOT_FOUND, EVENTS_NOT_FOUND, EVENTS_DAMAGED */
export async function readStoredJob(store: string, jobId: string): Promise<StoredJob> {
  const folder = join(store, "jobs", jobId);
  const record = await readFile(join(folder, "job.json"), "utf8").catch(() => undefined);
  if (record === undefined) {
    const message = `The store ${store} has no job ${jobId}; --store names the coordinator's SEGUE_STORE.`;
    throw new SegueError("JOB_NOT_FOUND", message, { status: "NOT_FOUND" });
  }
  const names = (await readdir(join(folder, "events")).catch(() => [])).filter((name) => name.endsWith(".jsonl")).sort();
  if (names.length === 0) {
    throw new SegueError("EVENTS_NOT_FOUND", `No events of ${jobId} are recorded in ${folder}.`, { status: "NOT_FOUND" });
  }
  const entries: EventLogEntry[] = [];
  for (const name of names) {
    const path = join(folder, "events", name);
    try {
      entries.push(...parseEventLog(await readFile(path, "utf8")));
    } catch (cause) {
      throw new SegueError("EVENTS_DAMAGED", `${path} has a line that is no JSON.`, { status: "DATA_LOSS", cause });
    }
  }
  return {
    jobId,
    record: JSON.parse(record) as Record<string, unknown>,
    entries,
    checkpoints: await checkpointSteps(join(folder, "checkpoints")),
  };
}

export function checkpointFolder(store: string, jobId: string, step: number): string {
  return join(store, "jobs", jobId, "checkpoints", `step-${String(step).padStart(8, "0")}`);
}

async function checkpointSteps(folder: string): Promise<number[]> {
  const names = await readdir(folder).catch(() => []);
  const steps = names.flatMap((name) => /^step-(\d{8,})$/.exec(name)?.[1] ?? []).map(Number);
  return steps.sort((a, b) => a - b);
}
