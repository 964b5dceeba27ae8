import { setTimeout as sleep } from "node:timers/promises";
import { SegueError } from "@segue/core";
import { parseEvaluation, redisKeys, type connectRedis, type EvaluationCellRecord, type EvaluationRecord } from "@segue/runtime";
import { meanAccuracy, type HeatMap } from "../show/heat-map.js";
import type { EvaluationStatus } from "./kind.js";

type Redis = ReturnType<typeof connectRedis>;

export type EvaluationCell = Pick<EvaluationCellRecord, "length" | "depth" | "correct" | "samples">;

/** A heat map as far as it is known; `accuracy` is the mean over the cells that are known. */
export interface EvaluationResult extends Pick<
  EvaluationRecord,
  | "evaluationId"
  | "jobId"
  | "step"
  | "name"
  | "digest"
  | "cure"
  | "status"
  | "reason"
  | "lengths"
  | "depths"
  | "carryState"
  | "accuracy"
> {
  readonly cells: readonly EvaluationCell[];
}

const POLL_MS = 500;

/** What Redis knows of an evaluation; undefined when nothing. */
export async function readEvaluation(redis: Redis, evaluationId: string): Promise<EvaluationResult | undefined> {
  const [fields, cellFields] = await Promise.all([
    redis.hgetall(redisKeys.evaluation(evaluationId)),
    redis.hgetall(redisKeys.cells(evaluationId)),
  ]);
  return fields["jobId"] === undefined ? undefined : evaluationResult(parseEvaluation(evaluationId, fields, cellFields));
}

export function evaluationResult(evaluation: EvaluationRecord): EvaluationResult {
  const { evaluationId, jobId, step, name, digest, cure, status, reason, lengths, depths, carryState } = evaluation;
  const cells = evaluation.cells.map(({ length, depth, correct, samples }) => ({ length, depth, correct, samples }));
  const accuracy = meanAccuracy(heatMapOf({ lengths, depths, cells })) ?? null;
  return { evaluationId, jobId, step, name, digest, cure, status, reason, lengths, depths, carryState, cells, accuracy };
}

export function heatMapOf({ lengths, depths, cells }: Pick<EvaluationResult, "lengths" | "depths" | "cells">): HeatMap {
  const shares = new Map(cells.map(({ length, depth, correct, samples }) => [`${length}:${depth}`, correct / samples]));
  return { lengths, depths, accuracy: (length, depth) => shares.get(`${length}:${depth}`) };
}

/** Whether every cell of the heat map is known: which ones they are counts, not how many. */
export function isComplete(result: EvaluationResult): boolean {
  const { lengths, depths, accuracy } = heatMapOf(result);
  return lengths.every((length) => depths.every((depth) => accuracy(length, depth) !== undefined));
}

/** Waits until every cell of a heat map is known; throws as {@link waitUntilComplete}. */
export async function waitForEvaluation(
  redis: Redis,
  evaluationId: string,
  options: { readonly signal: AbortSignal; readonly onChange?: (result: EvaluationResult) => void },
): Promise<EvaluationResult> {
  return waitUntilComplete(() => readEvaluation(redis, evaluationId), {
    ...options,
    cells: ({ cells }) => cells.length,
    isComplete,
  });
}

interface Waiting<T> {
  readonly signal: AbortSignal;
  /** How many cells are known. */
  readonly cells: (result: T) => number;
  readonly isComplete: (result: T) => boolean;
  readonly onChange?: (result: T) => void;
}

/**
 * Waits until an evaluation is complete.
 * @throws SegueError EVALUATION_FAILED when the evaluator gave up on it; the signal's reason when it aborts
 */
export async function waitUntilComplete<T extends EvaluationStatus>(
  read: () => Promise<T | undefined>,
  { signal, cells, isComplete, onChange }: Waiting<T>,
): Promise<T> {
  let known = -1;
  for (;;) {
    signal.throwIfAborted();
    const result = await read();
    if (result && cells(result) !== known) {
      known = cells(result);
      onChange?.(result);
    }
    if (result && isComplete(result)) return result;
    if (result?.status === "failed") {
      throw new SegueError("EVALUATION_FAILED", `${result.evaluationId} could not be finished: ${result.reason}`, {
        status: "ABORTED",
      });
    }
    await sleep(POLL_MS, undefined, { signal });
  }
}
