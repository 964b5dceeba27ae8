import { createHash } from "node:crypto";
import { SegueError, validateJobSpec, type JobSpec, type Violation } from "@segue/core";
import { studyInvalid, type JobGrid, type Study } from "./study-spec.js";

/** One training job of a study. */
export interface PlannedJob {
  readonly name: string;
  /** The grid it is of. */
  readonly grid: string;
  /** Its place in the grid: values by path. */
  readonly values: Readonly<Record<string, unknown>>;
  readonly spec: JobSpec;
  /** Equal for equal specs of one study: submitting again finds the job that is there. */
  readonly idempotencyKey: string;
  readonly warnings: readonly string[];
}

const MAX_JOBS = 256;
const MAX_NAME = 63;

/**
 * The jobs of a study, grid by grid, the last axis changing fastest. A function of the study alone.
 * @throws SegueError STUDY_INVALID with every problem of every job
 */
export function planStudy(study: Study): PlannedJob[] {
  const count = study.jobs.reduce((sum, { grid }) => sum + Object.values(grid).reduce((size, list) => size * list.length, 1), 0);
  if (count > MAX_JOBS) throw studyInvalid([{ field: "jobs", description: `are ${count}; a study has at most ${MAX_JOBS}` }]);
  const violations: Violation[] = [];
  const jobs = study.jobs.flatMap((grid, index) =>
    combinations(grid).flatMap((values) => {
      const name = jobName(study.name, grid.name, values);
      try {
        const settings = { ...grid.set, ...values };
        const input = Object.entries(settings).reduce<unknown>(
          (spec, [paths, value]) => paths.split(",").reduce((changed, path) => withSetting(changed, path.trim(), value), spec),
          structuredClone(study.base),
        );
        const { spec, warnings } = validateJobSpec(withSetting(input, "name", name));
        return [{ name, grid: grid.name, values, spec, warnings, idempotencyKey: keyOf(study.name, spec) }];
      } catch (error) {
        if (!(error instanceof SegueError)) throw error;
        const found = error.violations ?? [{ field: "", description: error.message }];
        violations.push(...found.map(({ field, description }) => ({ field: `jobs[${index}] (${name}): ${field}`, description })));
        return [];
      }
    }),
  );
  if (violations.length > 0) throw studyInvalid(violations);
  return jobs;
}

function combinations({ grid }: JobGrid): Record<string, unknown>[] {
  return Object.entries(grid).reduce<Record<string, unknown>[]>(
    (found, [path, list]) => found.flatMap((values) => list.map((value) => ({ ...values, [path]: value }))),
    [{}],
  );
}

/** Readable; a digest where the values would not fit. */
function jobName(study: string, grid: string, values: Readonly<Record<string, unknown>>): string {
  const parts = Object.values(values).map((value) =>
    typeof value === "string" || typeof value === "number" ? value : digest(value),
  );
  const name = [study, grid, ...parts].join("-").replace(/[^A-Za-z0-9._-]/g, "-");
  return name.length <= MAX_NAME ? name : `${name.slice(0, MAX_NAME - 9)}-${digest(values)}`;
}

function keyOf(study: string, spec: JobSpec): string {
  return `study-${study}-${createHash("sha256").update(JSON.stringify(spec)).digest("hex")}`;
}

function digest(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex").slice(0, 8);
}

/** A copy with the setting at a path such as "tbptt.segmentTokens" or "evaluations[0].passkey.lengths". */
function withSetting(spec: unknown, path: string, value: unknown): unknown {
  const keys = path.split(/[.[\]]+/).filter((key) => key !== "");
  return changed(spec, keys, value);
}

function changed(container: unknown, [key, ...rest]: readonly string[], value: unknown): unknown {
  if (key === undefined) return value;
  if (Array.isArray(container) && /^\d+$/.test(key)) {
    const at = Number(key);
    const copy: unknown[] = [...(container as readonly unknown[])];
    copy[at] = changed(copy[at], rest, value);
    return copy;
  }
  const mapping = (typeof container === "object" && container !== null ? container : {}) as Record<string, unknown>;
  return { ...mapping, [key]: changed(mapping[key], rest, value) };
}
