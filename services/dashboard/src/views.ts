/** What pages and the JSON endpoints show; read from the documented hashes, whose values are text that may be missing or malformed. */

type Hash = Readonly<Record<string, string>>;

export interface JobView {
  readonly id: string;
  readonly name: string;
  /** WAITING, RUNNING, PAUSING, PAUSED, SUCCEEDED, CANCELLED, FAILED. */
  readonly phase: string;
  readonly reason: string;
  readonly engine: string;
  readonly step: number;
  readonly totalSteps: number;
  readonly tokens: number;
  readonly totalTokens: number;
  readonly loss: number | null;
  readonly tokensPerSecond: number | null;
  readonly learningRate: number | null;
  readonly gradientNorm: number | null;
  readonly etaSeconds: number | null;
  readonly workers: number;
  readonly attempt: number;
  readonly parameters: number;
  readonly checkpointStep: number;
  readonly checkpointDigest: string;
  readonly documentsRead: number;
  readonly documentsDroppedShort: number;
  readonly submittedAtMs: number;
  readonly updatedAtMs: number;
}

export interface WorkerView {
  readonly id: string;
  readonly name: string;
  readonly engine: string;
  readonly detail: string;
  readonly jobId: string;
  readonly shards: readonly number[];
  readonly step: number;
  readonly rssBytes: number;
  readonly state: string;
  readonly seenAtMs: number;
}

export interface EvaluatorView {
  readonly name: string;
  readonly state: string;
  /** The cell being evaluated, in words; empty when idle. */
  readonly cell: string;
  readonly engine: string;
  readonly seenAtMs: number;
}

export interface CheckpointView {
  readonly step: number;
  readonly digest: string;
  readonly createdAtMs: number;
  readonly sizeBytes: number;
  readonly loss: number | null;
}

export interface CellView {
  readonly length: number;
  readonly depth: number;
  readonly correct: number;
  readonly samples: number;
  readonly ms: number;
  /** A few of the wrong answers, to look at. */
  readonly wrong: readonly { readonly expected: string; readonly decoded: string }[];
}

export interface EvaluationView {
  readonly id: string;
  readonly jobId: string;
  readonly step: number;
  readonly name: string;
  readonly digest: string;
  readonly lengths: readonly number[];
  readonly depths: readonly number[];
  readonly samples: number;
  readonly digits: number;
  readonly seed: number;
  readonly template: string;
  readonly carryState: boolean;
  /** queued, running, done or failed. */
  readonly status: string;
  /** Why it failed; else empty. */
  readonly reason: string;
  readonly accuracy: number | null;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
  readonly cells: readonly CellView[];
}

const WRONG_ANSWERS_SHOWN = 3;

/** The value as a finite number, else null. */
function finite(value: unknown): number | null {
  if (value === undefined || value === null || value === "") return null;
  const number = Number(value);
  return Number.isFinite(number) ? number : null;
}

function count(value: unknown): number {
  return finite(value) ?? 0;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function json(value: string | undefined): unknown {
  if (value === undefined) return undefined;
  try {
    return JSON.parse(value);
  } catch {
    return undefined;
  }
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

function numbers(value: unknown): number[] {
  return Array.isArray(value) ? value.map(finite).filter((entry) => entry !== null) : [];
}

export function jobView(id: string, hash: Hash): JobView {
  return {
    id,
    name: hash["name"] ?? "",
    phase: (hash["phase"] ?? "").replace(/^JOB_PHASE_/, ""),
    reason: hash["reason"] ?? "",
    engine: hash["engine"] ?? "",
    step: count(hash["step"]),
    totalSteps: count(hash["totalSteps"]),
    tokens: count(hash["tokens"]),
    totalTokens: count(hash["totalTokens"]),
    loss: finite(hash["loss"]),
    tokensPerSecond: finite(hash["tokensPerSecond"]),
    learningRate: finite(hash["learningRate"]),
    gradientNorm: finite(hash["gradientNorm"]),
    etaSeconds: finite(hash["etaSeconds"]),
    workers: count(hash["workers"]),
    attempt: count(hash["attempt"]),
    parameters: count(hash["parameters"]),
    checkpointStep: count(hash["checkpointStep"]),
    checkpointDigest: hash["checkpointDigest"] ?? "",
    documentsRead: count(hash["documentsRead"]),
    documentsDroppedShort: count(hash["documentsDroppedShort"]),
    submittedAtMs: count(hash["submittedAtMs"]),
    updatedAtMs: count(hash["updatedAtMs"]),
  };
}

/** The effective spec of a job, or null where the hash has none. */
export function jobSpecView(hash: Hash): unknown {
  return json(hash["spec"]) ?? null;
}

export function workerView(id: string, value: string): WorkerView {
  const worker = record(json(value));
  return {
    id,
    name: text(worker["name"]) || id,
    engine: text(worker["engine"]),
    detail: text(worker["detail"]),
    jobId: text(worker["jobId"]),
    shards: numbers(worker["shards"]),
    step: count(worker["step"]),
    rssBytes: count(worker["rssBytes"]),
    state: text(worker["state"]),
    seenAtMs: count(worker["seenAtMs"]),
  };
}

export function evaluatorView(name: string, value: string): EvaluatorView {
  const evaluator = record(json(value));
  return {
    name,
    state: text(evaluator["state"]),
    cell: text(evaluator["cell"]),
    engine: text(evaluator["engine"]),
    seenAtMs: count(evaluator["seenAtMs"]),
  };
}

export function checkpointView(value: string): CheckpointView {
  const checkpoint = record(json(value));
  return {
    step: count(checkpoint["step"]),
    digest: text(checkpoint["digest"]),
    createdAtMs: count(checkpoint["createdAtMs"]),
    sizeBytes: count(checkpoint["sizeBytes"]),
    loss: finite(checkpoint["loss"]),
  };
}

/** @param cells the hash `<length>:<depth>` -> JSON */
export function evaluationView(id: string, hash: Hash, cells: Hash): EvaluationView {
  return {
    id,
    jobId: hash["jobId"] ?? "",
    step: count(hash["step"]),
    name: hash["name"] ?? "",
    digest: hash["digest"] ?? "",
    lengths: numbers(json(hash["lengths"])),
    depths: numbers(json(hash["depths"])),
    samples: count(hash["samples"]),
    digits: count(hash["digits"]),
    seed: count(hash["seed"]),
    template: hash["template"] ?? "",
    carryState: hash["carryState"] !== "false" && hash["carryState"] !== "0",
    status: hash["status"] ?? "",
    reason: hash["reason"] ?? "",
    accuracy: finite(hash["accuracy"]),
    createdAtMs: count(hash["createdAtMs"]),
    updatedAtMs: count(hash["updatedAtMs"]),
    cells: Object.entries(cells).map(([field, value]) => cellView(field, value)),
  };
}

function cellView(field: string, value: string): CellView {
  const [length, depth] = field.split(":");
  const cell = record(json(value));
  const answers = Array.isArray(cell["answers"]) ? cell["answers"].map(record) : [];
  return {
    length: count(length),
    depth: count(depth),
    correct: count(cell["correct"]),
    samples: count(cell["samples"]),
    ms: count(cell["ms"]),
    wrong: answers
      .map((answer) => ({ expected: text(answer["expected"]), decoded: text(answer["decoded"]) }))
      .filter(({ expected, decoded }) => !decoded.includes(expected))
      .slice(0, WRONG_ANSWERS_SHOWN),
  };
}
