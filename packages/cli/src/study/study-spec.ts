import { readFile } from "node:fs/promises";
import { plainYaml, problems, SegueError, unknownSetting, type Violation } from "@segue/core";
import { z } from "zod";

/** A study as written: jobs that differ in a few settings, and what to conclude from their evaluations. */
export interface Study {
  readonly name: string;
  readonly description: string;
  /** What the jobs have in common: a job spec that need not be complete. */
  readonly base: Readonly<Record<string, unknown>>;
  readonly jobs: readonly JobGrid[];
  readonly analyses: readonly AnalysisSpec[];
}

/** Jobs for every combination of the values in `grid`. */
export interface JobGrid {
  readonly name: string;
  /** Settings on top of the base, by path. */
  readonly set: Readonly<Record<string, unknown>>;
  /** Values by path, or by several paths with commas between them, which then change together. */
  readonly grid: Readonly<Record<string, readonly unknown[]>>;
}

export const ANALYSIS_KINDS = ["collapse", "forget", "recall", "cures", "moreData", "learningRate"] as const;

export interface AnalysisSpec {
  readonly name: string;
  readonly kind: (typeof ANALYSIS_KINDS)[number];
  /** Names of grids; absent: all. */
  readonly jobs?: readonly string[] | undefined;
  /** Evaluations, by name; absent: all of a kind that fits. */
  readonly evaluations?: readonly string[] | undefined;
  /** Of `recall`: the accuracy that a length must exceed. */
  readonly accuracy: number;
}

/** The paper's (paper.md section 5). */
const RECALL_ACCURACY = 0.95;

const nameError = "must be 1 to 24 lower-case letters, digits or dashes, the first a letter or digit";
const name = z.string({ error: nameError }).regex(/^[a-z0-9][a-z0-9-]{0,23}$/, { error: nameError });
const mapping = z.record(z.string(), z.unknown(), { error: "must be a mapping of settings" });
const values = z.array(z.unknown(), { error: "must be a list of values" }).min(1, { error: "must hold a value at least" });
const names = z.array(name, { error: "must be a list of names" }).min(1, { error: "must hold a name at least" }).optional();
const kinds = ANALYSIS_KINDS.join(", ");

const grid = z.strictObject({
  name,
  set: mapping.default({}),
  grid: z.record(z.string(), values, { error: "must be a mapping of settings to lists of values" }).default({}),
});

const analysis = z.strictObject({
  name,
  kind: z.enum(ANALYSIS_KINDS, { error: `must be one of ${kinds}` }),
  jobs: names,
  evaluations: z.array(z.string(), { error: "must be a list of names" }).min(1).optional(),
  accuracy: z.number({ error: "must be a share between 0 and 1" }).min(0).max(1).default(RECALL_ACCURACY),
});

const schema = z.strictObject({
  name,
  description: z.string({ error: "must be a text" }).default(""),
  base: mapping.default({}),
  jobs: z
    .array(grid, { error: "must be a list of grids of jobs" })
    .min(1, { error: "must hold a grid at least" })
    .max(64, { error: "must hold at most 64 grids" }),
  analyses: z.array(analysis, { error: "must be a list of analyses" }).default([]),
});

const SETTINGS = {
  study: Object.keys(schema.shape),
  jobs: Object.keys(grid.shape),
  analyses: Object.keys(analysis.shape),
} as const;

/** @throws SegueError FILE_UNREADABLE, STUDY_INVALID with all that is wrong */
export async function readStudy(file: string): Promise<Study> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new SegueError("FILE_UNREADABLE", `Cannot read the study ${file}: ${reason}`, { cause });
  }
  return parseStudy(text);
}

/** @throws SegueError STUDY_INVALID with all that is wrong with the file itself; {@link planStudy} checks the jobs */
export function parseStudy(text: string): Study {
  const parsed = schema.safeParse(plainYaml(text, studyInvalid));
  if (!parsed.success) throw studyInvalid(parsed.error.issues.flatMap(violationsOf));
  const study = parsed.data;
  const violations = [...repeatedNames(study.jobs, "jobs"), ...repeatedNames(study.analyses, "analyses")];
  const grids = study.jobs.map(({ name }) => name);
  study.analyses.forEach(({ jobs = [] }, index) => {
    for (const named of jobs) {
      if (grids.includes(named)) continue;
      violations.push({ field: `analyses[${index}].jobs`, description: `names "${named}"; the study has ${grids.join(", ")}` });
    }
  });
  if (violations.length > 0) throw studyInvalid(violations);
  return study;
}

/** The error that tells everything wrong with a study. */
export function studyInvalid(violations: readonly Violation[]): SegueError {
  return problems("STUDY_INVALID", "The study", violations);
}

function violationsOf(issue: z.core.$ZodIssue): Violation[] {
  const path = issue.path.map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`)).join("");
  const field = path.replace(/^\./, "");
  if (issue.code !== "unrecognized_keys") return [{ field, description: issue.message }];
  const section = issue.path[0] === "jobs" ? "jobs" : issue.path[0] === "analyses" ? "analyses" : "study";
  return issue.keys.map((key) => ({
    field: field === "" ? key : `${field}.${key}`,
    description: unknownSetting(key, SETTINGS[section]),
  }));
}

function repeatedNames(items: readonly { readonly name: string }[], list: string): Violation[] {
  return items.flatMap(({ name }, index) =>
    items.findIndex((item) => item.name === name) < index
      ? [{ field: `${list}[${index}].name`, description: `"${name}" is used twice` }]
      : [],
  );
}
