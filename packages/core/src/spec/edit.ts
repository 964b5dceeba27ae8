import { parse } from "yaml";
import { SegueError, type Violation } from "../errors.js";
import type { SettingChange } from "../ledger/event-log.js";
import type { JobSpec } from "./job-spec.js";
import { specInvalid, validateJobSpec, type ParsedSpec } from "./validate.js";

/** Settings of a job that may change between two of its steps. Every other one shapes the data, the model or what is committed already. */
export const EDITABLE_SETTINGS = [
  "optimizer.learningRate",
  "schedule.warmupSteps",
  "schedule.decaySteps",
  "schedule.decay",
  "schedule.finalRatio",
  "train.steps",
  "evaluations",
] as const;

export interface EditedSpec extends ParsedSpec {
  /** By path, without those that stay as they are. */
  readonly changes: Readonly<Record<string, SettingChange>>;
}

/**
 * Changes settings of a job that has `step` steps behind it.
 * @param settings paths as in a job spec's YAML, and values as YAML text
 * @throws SegueError SETTING_NOT_EDITABLE, SPEC_INVALID, each with one violation per problem
 */
export function editJobSpec(spec: JobSpec, settings: Readonly<Record<string, string>>, step: number): EditedSpec {
  const paths = Object.keys(settings);
  if (paths.length === 0)
    throw specInvalid([{ field: "", description: `no change is given; editable: ${EDITABLE_SETTINGS.join(", ")}` }]);
  refuseOthers(paths);
  const edited = structuredClone(spec) as unknown as Record<string, unknown>;
  const unreadable: Violation[] = [];
  for (const [path, text] of Object.entries(settings)) {
    try {
      setAt(edited, path, parse(text));
    } catch (error) {
      unreadable.push({ field: path, description: `is not YAML: ${error instanceof Error ? error.message : String(error)}` });
    }
  }
  if (unreadable.length > 0) throw specInvalid(unreadable);
  const parsed = validateJobSpec(edited);
  const { steps } = parsed.spec.train;
  if (steps <= step) {
    throw specInvalid([{ field: "train.steps", description: `must exceed the ${step} steps that are done, but is ${steps}` }]);
  }
  const changes = paths.flatMap((path): [string, SettingChange][] => {
    const change = { from: valueAt(spec, path), to: valueAt(parsed.spec, path) };
    return JSON.stringify(change.from) === JSON.stringify(change.to) ? [] : [[path, change]];
  });
  return { ...parsed, changes: Object.fromEntries(changes) };
}

function refuseOthers(paths: readonly string[]): void {
  const editable = EDITABLE_SETTINGS.join(", ");
  const violations = paths
    .filter((path) => !(EDITABLE_SETTINGS as readonly string[]).includes(path))
    .map((field) => ({ field, description: `cannot change once the job exists; editable: ${editable}` }));
  if (violations.length === 0) return;
  const names = violations.map(({ field }) => field).join(", ");
  throw new SegueError("SETTING_NOT_EDITABLE", `${names}: cannot change once the job exists; editable: ${editable}`, {
    violations,
  });
}

function setAt(target: Record<string, unknown>, path: string, value: unknown): void {
  const [key = "", ...rest] = path.split(".");
  const inner = rest[0];
  if (inner === undefined) target[key] = value;
  else (target[key] as Record<string, unknown>)[inner] = value;
}

function valueAt(spec: JobSpec, path: string): unknown {
  return path.split(".").reduce<unknown>((value, key) => (value as Record<string, unknown>)[key], spec);
}
