import { SegueError } from "@segue/core";
import type { z } from "zod";
import { effectiveRemembranceTask } from "./effective-remembrance.js";
import { lossByPositionTask } from "./loss-by-position.js";
import { passkeyTask } from "./passkey.js";
import { stateStatisticsTask } from "./state-statistics.js";
import type { Cell, Closing, Task, TaskName } from "./task.js";

const TASKS: Readonly<Record<TaskName, Task>> = {
  passkey: passkeyTask,
  lossByPosition: lossByPositionTask,
  stateStatistics: stateStatisticsTask,
  effectiveRemembrance: effectiveRemembranceTask,
};

export function taskOf({ task }: Pick<Cell, "task">): Task {
  return TASKS[task];
}

/** @throws SegueError CELL_INVALID: no retry will mend it */
export function parseCell(data: unknown): Cell {
  return parsed(data, "cell", ({ cellSchema }) => cellSchema);
}

/** @throws SegueError CELL_INVALID */
export function parseClosing(data: unknown): Closing {
  return parsed(data, "evaluation", ({ closingSchema }) => closingSchema);
}

function parsed<T>(data: unknown, what: string, schemaOf: (task: Task) => z.ZodType<T>): T {
  // What names no task is of passkeys: there was nothing else once.
  const name = typeof data === "object" && data !== null && "task" in data ? String(data.task) : "passkey";
  const schema = schemaOf(Object.hasOwn(TASKS, name) ? TASKS[name as TaskName] : passkeyTask);
  const result = schema.safeParse(data);
  if (result.success) return result.data;
  const violations = result.error.issues.map(({ path, message }) => ({ field: path.join("."), description: message }));
  throw new SegueError("CELL_INVALID", `The queue holds a ${what} that is not of this version's form.`, { violations });
}
