import { parse } from "yaml";
import { SegueError, type Violation } from "../errors.js";
import type { SettingChange } from "../ledger/event-log.js";
import type { JobSpec } from "./job-spec.js";
import { learningRateAt } from "../schedule/learning-rate.js";
import { specInvalid, validateJobSpec, type ParsedSpec } from "./validate.js";

/** Settings of a job that may change between two of its steps. Every other one shapes the data, the model or what is committed already. */
export const EDITABLE_SETTINGS = [
  "optimizer.learningRate",
  "schedule.warmupSteps",
  "schedule.decaySteps",
  "schedule.decay",
  "schedule.finalRatio",
  "schedule.decayFrom",
  "train.steps",
  "evaluations",
] as const;

export interface EditedSpec extends ParsedSpec {
  /** By path, without those that stay as they are. */
  readonly changes: Readonly<Record<string, SettingChange>>;
}

/**
 * Changes settings of a job that has `step` steps behind it.
 * @param settings paths as in a job spec's YAML, and values as YAML text; `here` for `schedule.decayFrom` is that step at its present rate
 * @param dataSteps steps that the documents last for; Infinity: at least as long as the job
 * @throws SegueError SETTING_NOT_EDITABLE, SPEC_INVALID, each with one violation per problem
 */
export function editJobSpec(
  spec: JobSpec,
  settings: Readonly<Record<string, string>>,
  step: number,
  dataSteps = Infinity,
): EditedSpec {
  const paths = Object.keys(settings);
  if (paths.length === 0)
    throw specInvalid([{ field: "", description: `no change is given; editable: ${EDITABLE_SETTINGS.join(", ")}` }]);
  refuseOthers(paths);
  const edited = structuredClone(spec) as unknown as Record<string, unknown>;
  const rateOf = ({ train, optimizer, schedule }: JobSpec): number =>
    learningRateAt(step, Math.min(train.steps, dataSteps), optimizer, schedule);
  const rate = rateOf(spec);
  const unreadable: Violation[] = [];
  for (const [path, text] of Object.entries(settings)) {
    try {
      const value: unknown = parse(text);
      const isHere = path === "schedule.decayFrom" && value === "here";
      setAt(edited, path, isHere ? { step, learningRate: rate } : value);
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
  const isJump = !("optimizer.learningRate" in settings) && rateOf(parsed.spec) !== rate;
  const warnings = isJump ? [...parsed.warnings, jumpWarning(step, rate, rateOf(parsed.spec))] : parsed.warnings;
  return { ...parsed, warnings, changes: Object.fromEntries(changes) };
}

function jumpWarning(step: number, before: number, after: number): string {
  return (
    `The learning rate of step ${step} becomes ${after}, where it would have been ${before}: warm-up and decay follow from train.steps ` +
    "and the schedule as they are now. --decay-from-here (schedule.decayFrom: here) lets it fall from where it is to the job's end."
  );
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
