import { setTimeout as sleep } from "node:timers/promises";
import { SegueError } from "@segue/core";
import { redisKeys, type connectRedis } from "@segue/runtime";
import { meanAccuracy, type HeatMap } from "../show/heat-map.js";

type Redis = ReturnType<typeof connectRedis>;

export interface EvaluationCell {
  readonly length: number;
  readonly depth: number;
  readonly correct: number;
  readonly samples: number;
}

/** A heat map as far as it is known. */
export interface EvaluationResult {
  readonly evaluationId: string;
  readonly jobId: string;
  readonly step: number;
  readonly name: string;
  readonly digest: string;
  readonly status: string;
  /** Why it failed; empty otherwise. */
  readonly reason: string;
  readonly lengths: readonly number[];
  readonly depths: readonly number[];
  readonly carryState: boolean;
  readonly cells: readonly EvaluationCell[];
  /** Mean over the cells that are known. */
  readonly accuracy: number | null;
}

const POLL_MS = 500;

/** What Redis knows of an evaluation; undefined when nothing. */
export async function readEvaluation(redis: Redis, evaluationId: string): Promise<EvaluationResult | undefined> {
  const [fields, cellFields] = await Promise.all([
    redis.hgetall(redisKeys.evaluation(evaluationId)),
    redis.hgetall(redisKeys.cells(evaluationId)),
  ]);
  return fields["jobId"] === undefined ? undefined : parseEvaluation(evaluationId, fields, cellFields);
}

/** docs/reference/redis.md describes both hashes. */
export function parseEvaluation(
  evaluationId: string,
  fields: Readonly<Record<string, string>>,
  cellFields: Readonly<Record<string, string>>,
): EvaluationResult {
  const result = {
    evaluationId,
    jobId: fields["jobId"] ?? "",
    step: Number(fields["step"]),
    name: fields["name"] ?? "",
    digest: fields["digest"] ?? "",
    status: fields["status"] ?? "",
    reason: fields["reason"] ?? "",
    lengths: JSON.parse(fields["lengths"] ?? "[]") as number[],
    depths: JSON.parse(fields["depths"] ?? "[]") as number[],
    carryState: fields["carryState"] !== "false",
    cells: Object.entries(cellFields).map(([field, value]) => {
      const [length, depth] = field.split(":").map(Number);
      const { correct, samples } = JSON.parse(value) as { correct: number; samples: number };
      return { length: length ?? NaN, depth: depth ?? NaN, correct, samples };
    }),
  };
  return { ...result, accuracy: meanAccuracy(heatMapOf(result)) ?? null };
}

export function heatMapOf({ lengths, depths, cells }: Pick<EvaluationResult, "lengths" | "depths" | "cells">): HeatMap {
  const shares = new Map(cells.map(({ length, depth, correct, samples }) => [`${length}:${depth}`, correct / samples]));
  return { lengths, depths, accuracy: (length, depth) => shares.get(`${length}:${depth}`) };
}

export function isComplete({ lengths, depths, cells }: EvaluationResult): boolean {
  return cells.length >= lengths.length * depths.length;
}

/**
 * Waits until every cell is known.
 * @throws SegueError EVALUATION_FAILED when the evaluator gave up on it; the signal's reason when it aborts
 */
export async function waitForEvaluation(
  redis: Redis,
  evaluationId: string,
  options: { readonly signal: AbortSignal; readonly onChange?: (result: EvaluationResult) => void },
): Promise<EvaluationResult> {
  let known = -1;
  for (;;) {
    options.signal.throwIfAborted();
    const result = await readEvaluation(redis, evaluationId);
    if (result && result.cells.length !== known) {
      known = result.cells.length;
      options.onChange?.(result);
    }
    if (result && isComplete(result)) return result;
    if (result?.status === "failed") {
      throw new SegueError("EVALUATION_FAILED", `${evaluationId} could not be finished: ${result.reason}`, {
        status: "ABORTED",
      });
    }
    await sleep(POLL_MS, undefined, { signal: options.signal });
  }
}
