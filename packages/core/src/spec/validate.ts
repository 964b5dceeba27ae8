import { closest, distance } from "fastest-levenshtein";
import { SegueError, type Violation } from "../errors.js";
import { crossFieldChecks } from "./checks.js";
import { DEFAULT_PASSKEY_DATA, DEFAULT_SPEC, MODEL_PRESETS } from "./defaults.js";
import { fill } from "./fill.js";
import { fillEvaluation } from "./fill-evaluation.js";
import type {
  BatchSpec,
  CheckpointsSpec,
  DataSpec,
  JobSpec,
  ModelSpec,
  OptimizerSpec,
  PasskeyDataSpec,
  RoundsSpec,
  ScheduleSpec,
  SyncSpec,
  TbpttSpec,
  TokenizerSpec,
  TrainSpec,
  WorkersSpec,
} from "./job-spec.js";
import { stepsForTokens } from "./step-tokens.js";
import { mostWorkers } from "./placement.js";
import { jobSpecInputSchema, settingNames, type JobSpecInput } from "./schema.js";

export interface ParsedSpec {
  readonly spec: JobSpec;
  /** Settings that are legal but have no effect, and the like; sentences for people. */
  readonly warnings: string[];
}

/**
 * Checks a job spec given as plain data and fills in every default. Idempotent: an effective spec validates to itself.
 * `model.vocab` stays 0 when it depends on a tokenizer file; see {@link resolveVocabulary}.
 * @throws SegueError SPEC_INVALID with one violation per problem, all problems at once
 */
export function validateJobSpec(input: unknown): ParsedSpec {
  const violations: Violation[] = [];
  const badPaths: PropertyKey[][] = [];
  const parsed = jobSpecInputSchema.safeParse(input);
  if (!parsed.success) {
    for (const issue of parsed.error.issues) {
      if (issue.code === "unrecognized_keys") {
        for (const key of issue.keys) {
          violations.push({ field: fieldName([...issue.path, key]), description: unknownSetting(key, settingNames(issue.path)) });
          badPaths.push([...issue.path, key]);
        }
      } else {
        violations.push({ field: fieldName(issue.path), description: issue.message + butIs(valueAt(input, issue.path)) });
        badPaths.push(issue.path);
      }
    }
  }
  // What is sound is checked on, so that one pass tells everything.
  const rest = parsed.success ? parsed.data : jobSpecInputSchema.safeParse(without(input, badPaths)).data;
  if (rest === undefined) throw specInvalid(violations);

  const reported = violations.map(({ field }) => field);
  const draft = fillDefaults(rest);
  const checked = crossFieldChecks(rest, draft, (fields) =>
    fields.every(
      (field) =>
        !reported.some(
          (bad) => field === bad || field.startsWith(`${bad}.`) || bad.startsWith(`${field}.`) || bad.startsWith(`${field}[`),
        ),
    ),
  );
  violations.push(...checked.violations);
  if (violations.length > 0) throw specInvalid(violations);
  return { spec: draft, warnings: checked.warnings };
}

/**
 * The spec of a job as a coordinator stored it. An earlier version wrote no keys that it did not know: they get their defaults, but its
 * learning rates stay as they were (`schedule.revision`).
 * @throws SegueError SPEC_INVALID
 */
export function storedJobSpec(stored: unknown): JobSpec {
  const schedule = isRecord(stored) ? stored["schedule"] : undefined;
  const isEarlier = isRecord(stored) && isRecord(schedule) && schedule["revision"] === undefined;
  return validateJobSpec(isEarlier ? { ...stored, schedule: { ...schedule, revision: 1 } } : stored).spec;
}

/**
 * The spec with `model.vocab` settled for a tokenizer that is only known now.
 * @throws SegueError SPEC_INVALID when a given vocabulary is too small for the tokenizer
 */
export function resolveVocabulary(spec: JobSpec, tokenizerVocab: number): JobSpec {
  const { vocab, padVocabMultiple } = spec.model;
  if (vocab === 0) return { ...spec, model: { ...spec.model, vocab: paddedVocab(tokenizerVocab, padVocabMultiple) } };
  if (vocab >= tokenizerVocab) return spec;
  throw specInvalid([
    {
      field: "model.vocab",
      description: `must be at least the tokenizer's ${tokenizerVocab}, but is ${vocab}; remove it to follow the tokenizer`,
    },
  ]);
}

/** The error that tells everything wrong with a spec; equal violations are told once. */
export function specInvalid(violations: readonly Violation[]): SegueError {
  return problems("SPEC_INVALID", "The job spec", violations);
}

/** The error that tells everything wrong with what a person wrote, each thing once. @param what the start of a sentence */
export function problems(code: string, what: string, violations: readonly Violation[]): SegueError {
  const seen = new Set<string>();
  const unique = violations.filter(({ field, description }) => {
    const key = `${field}: ${description}`;
    return !seen.has(key) && seen.add(key);
  });
  const lines = unique.map(({ field, description }) => `  ${field === "" ? "" : `${field}: `}${description}`);
  const count = unique.length === 1 ? "a problem" : `${unique.length} problems`;
  return new SegueError(code, `${what} has ${count}:\n${lines.join("\n")}`, { violations: unique });
}

/** The nearest of `names` to a mistyped one, in a sentence. */
export function unknownSetting(key: string, names: readonly string[]): string {
  const nearest =
    names.length > 0
      ? closest(
          key.toLowerCase(),
          names.map((name) => name.toLowerCase()),
        )
      : "";
  const suggestion = names.find((name) => name.toLowerCase() === nearest);
  if (suggestion !== undefined && distance(key.toLowerCase(), nearest) <= Math.max(2, key.length / 2)) {
    return `is not a setting; did you mean ${suggestion}?`;
  }
  return `is not a setting; valid here: ${names.join(", ")}`;
}

function fillDefaults(input: JobSpecInput): JobSpec {
  const batch = fill<BatchSpec>(DEFAULT_SPEC.batch, input.batch);
  const tbptt = fillTbptt(input.tbptt);
  const sync = fill<SyncSpec>({ ...DEFAULT_SPEC.sync, replicas: batch.shards }, input.sync);
  const { tokens, ...train } = input.train ?? {};
  const steps = train.steps ?? stepsForTokens({ batch, tbptt }, tokens ?? 0);
  return {
    name: input.name ?? DEFAULT_SPEC.name,
    seed: input.seed ?? DEFAULT_SPEC.seed,
    priority: input.priority ?? DEFAULT_SPEC.priority,
    model: fillModel(input),
    data: fillData(input.data),
    tokenizer: fill<TokenizerSpec>(DEFAULT_SPEC.tokenizer, input.tokenizer),
    tbptt,
    batch,
    optimizer: fill<OptimizerSpec>(DEFAULT_SPEC.optimizer, input.optimizer),
    schedule: fillSchedule(input.schedule, steps),
    train: fill<TrainSpec>({ steps, ...DEFAULT_SPEC.train }, train),
    sync,
    rounds: fill<RoundsSpec>(DEFAULT_SPEC.rounds, input.rounds),
    checkpoints: fill<CheckpointsSpec>(DEFAULT_SPEC.checkpoints, input.checkpoints),
    evaluations: (input.evaluations ?? DEFAULT_SPEC.evaluations).map((evaluation) => fillEvaluation(evaluation, tbptt)),
    workers: fill<WorkersSpec>({ ...DEFAULT_SPEC.workers, max: mostWorkers({ batch, sync }) }, input.workers),
  };
}

function fillTbptt(input: JobSpecInput["tbptt"]): TbpttSpec {
  const isUnrelated = input?.sequence === "unrelated";
  return fill<TbpttSpec>({ ...DEFAULT_SPEC.tbptt, ...(isUnrelated && { resetAtDocumentEnd: false }) }, input);
}

function fillModel(input: JobSpecInput): ModelSpec {
  const size = MODEL_PRESETS[input.model?.preset ?? ""] ?? { layers: 0, dModel: 0 };
  const model = fill<ModelSpec>({ ...size, ...DEFAULT_SPEC.model }, input.model);
  const bytes = (input.tokenizer?.kind ?? DEFAULT_SPEC.tokenizer.kind) === "bytes";
  return model.vocab === 0 && bytes ? { ...model, vocab: paddedVocab(256, model.padVocabMultiple) } : model;
}

function fillData(input: JobSpecInput["data"]): DataSpec {
  const { passkey, ...data } = input ?? {};
  const filled = fill<DataSpec>({ ...DEFAULT_SPEC.data, ...(passkey && { minDocumentTokens: 0 }) }, data);
  return passkey ? { ...filled, passkey: fill<PasskeyDataSpec>(DEFAULT_PASSKEY_DATA, passkey) } : filled;
}

function fillSchedule(input: JobSpecInput["schedule"], steps: number): ScheduleSpec {
  const { warmupSteps, ...rest } = DEFAULT_SPEC.schedule;
  const tenth = Math.ceil(steps / 10);
  // A job of one step has nothing to decay to.
  const defaults = { warmupSteps: Math.min(warmupSteps, tenth), decaySteps: steps > 1 ? tenth : 0, ...rest };
  return fill<ScheduleSpec>(defaults, input);
}

function paddedVocab(vocab: number, multiple: number): number {
  return Math.ceil(vocab / multiple) * multiple;
}

function fieldName(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (name, key) => (typeof key === "number" ? `${name}[${key}]` : name === "" ? String(key) : `${name}.${String(key)}`),
    "",
  );
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, key) => (isRecord(value) ? value[key] : undefined), input);
}

function butIs(value: unknown): string {
  if (value === null) return ", but nothing is written; give a value or remove the line";
  if (typeof value === "object") return Array.isArray(value) ? ", but is a list" : ", but is a mapping";
  const shown = typeof value === "number" ? String(value) : (JSON.stringify(value) ?? "missing");
  return `, but is ${shown.length > 60 ? `${shown.slice(0, 60)}...` : shown}`;
}

/** A copy of the input less the given paths; a bad entry takes its whole list with it, so that positions stay true. */
function without(input: unknown, paths: readonly (readonly PropertyKey[])[]): unknown {
  const copy = structuredClone(input);
  for (const path of paths) {
    const end = typeof path.at(-1) === "number" ? path.slice(0, -1) : path;
    const parent = valueAt(copy, end.slice(0, -1));
    const key = end.at(-1);
    if (key !== undefined && isRecord(parent)) delete parent[key];
  }
  return copy;
}

function isRecord(value: unknown): value is Record<PropertyKey, unknown> {
  return typeof value === "object" && value !== null;
}
