import { cureKey } from "@segue/core";
import {
  numberList,
  numberOrNull,
  numberOrZero,
  objectOrEmpty,
  parsedJson,
  parseEvaluation,
  textOrEmpty,
  type EvaluationCellRecord,
  type EvaluationRecord,
} from "@segue/runtime";

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
  /** Why the newest checkpoint that was wanted is not stored or not copied; else empty. */
  readonly notDurable: string;
  /** Which evaluations are not queued, and why; else empty. */
  readonly evaluationsNotQueued: string;
  /** Which checkpoints were passed over, damaged or out of reach; else empty. */
  readonly checkpointWarning: string;
  /** What of the files that the data names is not read; empty: nothing. */
  readonly leftOut: string;
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
  readonly pace: PaceView;
  /** null without one. */
  readonly gpu: GpuView | null;
  readonly seenAtMs: number;
}

/** A worker's GPU and what it is doing; null: its driver does not tell. */
export interface GpuView {
  readonly ordinal: number;
  readonly name: string;
  readonly uuid: string;
  readonly memoryBytes: number;
  readonly memoryUsedBytes: number | null;
  readonly utilisationPercent: number | null;
  readonly temperatureCelsius: number | null;
}

/** How fast a worker is, and where the time of its steps goes. */
export interface PaceView {
  /** Milliseconds of computing one shard of one step; 0: unknown. */
  readonly shardMs: number;
  /** Much slower than the other members of its job. */
  readonly straggler: boolean;
  /** Milliseconds of a step; null before the first round. */
  readonly stepTimes: { readonly computeMs: number; readonly exchangeMs: number; readonly restMs: number } | null;
}

/** A member of a job's present generation. */
export interface MemberView extends PaceView {
  readonly workerId: string;
  readonly shards: number;
  readonly gpu: GpuView | null;
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

export interface CellView extends Omit<EvaluationCellRecord, "answers"> {
  /** A few of the wrong answers, to look at. */
  readonly wrong: EvaluationCellRecord["answers"];
}

export interface EvaluationView extends Omit<EvaluationRecord, "evaluationId" | "cells" | "cure"> {
  readonly id: string;
  /** In one word; none where there is none. */
  readonly cure: string;
  readonly cells: readonly CellView[];
}

const WRONG_ANSWERS_SHOWN = 3;

export function jobView(id: string, hash: Hash): JobView {
  return {
    id,
    name: hash["name"] ?? "",
    phase: (hash["phase"] ?? "").replace(/^JOB_PHASE_/, ""),
    reason: hash["reason"] ?? "",
    engine: hash["engine"] ?? "",
    step: numberOrZero(hash["step"]),
    totalSteps: numberOrZero(hash["totalSteps"]),
    tokens: numberOrZero(hash["tokens"]),
    totalTokens: numberOrZero(hash["totalTokens"]),
    loss: numberOrNull(hash["loss"]),
    tokensPerSecond: numberOrNull(hash["tokensPerSecond"]),
    learningRate: numberOrNull(hash["learningRate"]),
    gradientNorm: numberOrNull(hash["gradientNorm"]),
    etaSeconds: numberOrNull(hash["etaSeconds"]),
    workers: numberOrZero(hash["workers"]),
    attempt: numberOrZero(hash["attempt"]),
    parameters: numberOrZero(hash["parameters"]),
    checkpointStep: numberOrZero(hash["checkpointStep"]),
    checkpointDigest: hash["checkpointDigest"] ?? "",
    notDurable: [hash["notDurable"], hash["notCopied"]].filter(Boolean).join("; "),
    evaluationsNotQueued: hash["evaluationsNotQueued"] ?? "",
    checkpointWarning: hash["checkpointWarning"] ?? "",
    leftOut: hash["leftOut"] ?? "",
    documentsRead: numberOrZero(hash["documentsRead"]),
    documentsDroppedShort: numberOrZero(hash["documentsDroppedShort"]),
    submittedAtMs: numberOrZero(hash["submittedAtMs"]),
    updatedAtMs: numberOrZero(hash["updatedAtMs"]),
  };
}

/** The effective spec of a job, or null where the hash has none. */
export function jobSpecView(hash: Hash): unknown {
  return parsedJson(hash["spec"]) ?? null;
}

export function workerView(id: string, value: string): WorkerView {
  const worker = objectOrEmpty(parsedJson(value));
  return {
    id,
    name: textOrEmpty(worker["name"]) || id,
    engine: textOrEmpty(worker["engine"]),
    detail: textOrEmpty(worker["detail"]),
    jobId: textOrEmpty(worker["jobId"]),
    shards: numberList(worker["shards"]),
    step: numberOrZero(worker["step"]),
    rssBytes: numberOrZero(worker["rssBytes"]),
    state: textOrEmpty(worker["state"]),
    pace: paceView(worker),
    gpu: gpuView(worker["gpu"]),
    seenAtMs: numberOrZero(worker["seenAtMs"]),
  };
}

function gpuView(value: unknown): GpuView | null {
  const gpu = objectOrEmpty(value);
  if (Object.keys(gpu).length === 0) return null;
  return {
    ordinal: numberOrZero(gpu["ordinal"]),
    name: textOrEmpty(gpu["name"]),
    uuid: textOrEmpty(gpu["uuid"]),
    memoryBytes: numberOrZero(gpu["memoryBytes"]),
    memoryUsedBytes: numberOrNull(gpu["memoryUsedBytes"]),
    utilisationPercent: numberOrNull(gpu["utilisationPercent"]),
    temperatureCelsius: numberOrNull(gpu["temperatureCelsius"]),
  };
}

/**
 * The present members of a job, in order of their shards.
 * @param workers all that are attached, by id: what their GPUs do
 */
export function memberViews(hash: Hash, workers: Hash): MemberView[] {
  const members = parsedJson(hash["members"]);
  if (!Array.isArray(members)) return [];
  return members.map((value) => {
    const member = objectOrEmpty(value);
    const workerId = textOrEmpty(member["workerId"]);
    const { gpu } = workerView(workerId, workers[workerId] ?? "");
    return { workerId, shards: numberOrZero(member["shards"]), ...paceView(member), gpu };
  });
}

function paceView(fields: Readonly<Record<string, unknown>>): PaceView {
  const times = objectOrEmpty(fields["stepTimes"]);
  const isKnown = Object.keys(times).length > 0;
  return {
    shardMs: numberOrZero(fields["shardMs"]),
    straggler: fields["straggler"] === true,
    stepTimes: isKnown
      ? {
          computeMs: numberOrZero(times["computeMs"]),
          exchangeMs: numberOrZero(times["exchangeMs"]),
          restMs: numberOrZero(times["restMs"]),
        }
      : null,
  };
}

export function evaluatorView(name: string, value: string): EvaluatorView {
  const evaluator = objectOrEmpty(parsedJson(value));
  return {
    name,
    state: textOrEmpty(evaluator["state"]),
    cell: textOrEmpty(evaluator["cell"]),
    engine: textOrEmpty(evaluator["engine"]),
    seenAtMs: numberOrZero(evaluator["seenAtMs"]),
  };
}

export function checkpointView(value: string): CheckpointView {
  const checkpoint = objectOrEmpty(parsedJson(value));
  return {
    step: numberOrZero(checkpoint["step"]),
    digest: textOrEmpty(checkpoint["digest"]),
    createdAtMs: numberOrZero(checkpoint["createdAtMs"]),
    sizeBytes: numberOrZero(checkpoint["sizeBytes"]),
    loss: numberOrNull(checkpoint["loss"]),
  };
}

/** @param cells the hash `<length>:<depth>` -> JSON */
export function evaluationView(id: string, hash: Hash, cells: Hash): EvaluationView {
  const { evaluationId, ...evaluation } = parseEvaluation(id, hash, cells);
  return { ...evaluation, id: evaluationId, cure: cureKey(evaluation.cure), cells: evaluation.cells.map(cellView) };
}

function cellView({ answers, ...cell }: EvaluationCellRecord): CellView {
  const wrong = answers.filter(({ expected, decoded }) => !decoded.includes(expected));
  return { ...cell, wrong: wrong.slice(0, WRONG_ANSWERS_SHOWN) };
}
