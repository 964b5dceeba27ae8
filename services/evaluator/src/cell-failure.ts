import { cureKey } from "@segue/core";
import { UnrecoverableError, type Job, type Queue } from "bullmq";
import { parseCell, taskOf } from "./tasks/tasks.js";

/** Whether a job of the queue is not tried again after this error. */
export function isFinalFailure(job: Pick<Job, "attemptsMade" | "opts">, error: Error): boolean {
  return error instanceof UnrecoverableError || job.attemptsMade >= (job.opts.attempts ?? 1);
}

/** What BullMQ says in the try in which it only learns that there have been too many. */
const TOO_MANY_DIED = "job stalled more than allowable limit";

/** Which cell failed, after how many tries, and why: a sentence for people. */
export function cellFailure(job: Pick<Job, "data" | "attemptsMade" | "stalledCounter" | "failedReason">): string {
  const { attemptsMade, stalledCounter, failedReason } = job;
  const isGivenUp = failedReason === TOO_MANY_DIED;
  const died = stalledCounter > 0 ? `${count(stalledCounter, "evaluator")} died in it` : "";
  const tried = attemptsMade - (isGivenUp ? 1 : 0);
  const how = [died, tried > 0 ? count(tried, "failed try", "failed tries") : ""].filter((text) => text !== "").join(", ");
  return `the cell ${cellText(job.data)} failed (${how}): ${isGivenUp ? "it is not tried again" : failedReason}`;
}

/** The first failed cell of an evaluation; undefined when there is none. */
export async function failedCellOf(evaluation: Job, cells: Queue): Promise<Job | undefined> {
  const { failed = [] } = await evaluation.getDependencies({ failed: {} });
  const keys = [...failed, ...childrenNamedIn(evaluation)];
  for (const key of keys) {
    const job = await cells.getJob(key.split(":").slice(2).join(":"));
    if (job?.failedReason) return job;
  }
  return undefined;
}

/** BullMQ's own words: `child <key> failed`. */
function childrenNamedIn({ deferredFailure = "", failedReason = "" }: Job): string[] {
  return [deferredFailure, failedReason].flatMap((text) => /^child (.*) failed$/.exec(text)?.[1] ?? []);
}

function cellText(data: unknown): string {
  try {
    const cell = parseCell(data);
    const cure = cell.cure.kind === "none" ? "" : `, cure ${cureKey(cell.cure)}`;
    return `"${taskOf(cell).text(cell)}${cure}"`;
  } catch {
    return "of another version";
  }
}

function count(number: number, one: string, many = `${one}s`): string {
  return `${number} ${number === 1 ? one : many}`;
}
