import { editJobSpec, SegueError } from "@segue/core";
import type { EventLog } from "../run/event-log.js";
import type { JobBook } from "./job-book.js";

export interface EditDependencies {
  readonly book: JobBook;
  /** A log of its own, since a paused job's runner has closed its. */
  readonly eventsOf: (jobId: string) => EventLog;
}

/**
 * Changes settings of a paused job; they count from its next step on. Durable and recorded among the job's events when it resolves.
 * @returns sentences for people about settings without effect
 * @throws SegueError JOB_NOT_FOUND, JOB_NOT_PAUSED, SETTING_NOT_EDITABLE, SPEC_INVALID
 */
export async function editJob(
  { book, eventsOf }: EditDependencies,
  jobId: string,
  settings: Readonly<Record<string, string>>,
): Promise<readonly string[]> {
  const { record, live } = book.get(jobId);
  if (record.phase !== "PAUSED") {
    const advice = record.phase === "PAUSING" ? "wait until it is paused" : "pause it first";
    const message = `The job ${jobId} is ${record.phase}; only a paused job can be edited: ${advice}.`;
    throw new SegueError("JOB_NOT_PAUSED", message, { status: "FAILED_PRECONDITION" });
  }
  const { spec, changes, warnings } = editJobSpec(record.spec, settings, live.step, record.dataSteps);
  await book.setSpec(jobId, spec);
  const events = eventsOf(jobId);
  events.specChanged(changes);
  await events.close();
  return warnings;
}
