import { setTimeout as sleep } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { evaluationKind, laneStateFloats, tokensBefore, type EvaluationSpec } from "@segue/core";
import { isServiceError } from "@segue/protocol";
import { jobSpecToProto, redisKeys, type connectRedis } from "@segue/runtime";
import { submitJob } from "../commands/submit-job.js";
import type { Connection } from "../connection.js";
import { isComplete, readEvaluation } from "../evaluation/read-evaluation.js";
import { readLoss } from "../evaluation/read-loss.js";
import { isFinal, requireJob, type JobView } from "../show/job-view.js";
import type { PlannedJob } from "./plan.js";
import { trainedLength, type JobResult, type StudyEvaluation } from "./results.js";

/** What a study waits for, at one moment. */
export interface StudyProgress {
  readonly jobs: readonly JobView[];
  readonly evaluationsDone: number;
  /** As many as are known: checkpoints still to come bring more. */
  readonly evaluations: number;
}

export interface StudyRunOptions {
  readonly connection: Connection;
  readonly redis: ReturnType<typeof connectRedis>;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: StudyProgress) => void;
}

/** A job that was submitted, and its evaluations as far as they are finished. */
interface Subject {
  readonly planned: PlannedJob;
  view: JobView;
  /** Ids of its evaluations; its last ones are among them once it has succeeded. */
  ids: readonly string[];
  isAsked: boolean;
  readonly finished: Map<string, StudyEvaluation>;
  /** Evaluations that came to nothing, and why. */
  readonly failed: Map<string, string>;
}

const POLL_MS = 1_000;
/** How long the coordinator may be away, for example to restart. */
const AWAY_MS = 60_000;

/**
 * Runs the jobs of a study, as many at once as the cluster has workers for, and waits for all their evaluations. What an earlier call has
 * submitted is found again by its name, what has finished is not run again; a job that failed is tried once more.
 * @throws ServiceError what the coordinator says to a submission, or of a coordinator that stays away
 */
export async function runStudy(planned: readonly PlannedJob[], options: StudyRunOptions): Promise<JobResult[]> {
  const { connection, signal } = options;
  const subjects: Subject[] = [];
  for (const job of planned) {
    const view = await submitted(connection, job);
    subjects.push({ planned: job, view, ids: [], isAsked: false, finished: new Map(), failed: new Map() });
  }
  for (let answeredAtMs = Date.now(); ; await sleep(POLL_MS, undefined, { signal })) {
    try {
      await Promise.all(subjects.map((subject) => look(subject, options)));
      answeredAtMs = Date.now();
    } catch (error) {
      const mayReturn = isServiceError(error) && error.code === status.UNAVAILABLE && Date.now() - answeredAtMs < AWAY_MS;
      if (!mayReturn) throw error;
      continue;
    }
    options.onProgress?.({
      jobs: subjects.map(({ view }) => view),
      evaluationsDone: subjects.reduce((sum, { finished, failed }) => sum + finished.size + failed.size, 0),
      evaluations: subjects.reduce((sum, { ids }) => sum + ids.length, 0),
    });
    if (subjects.every(isOver)) return subjects.map(resultOf);
  }
}

async function submitted({ jobs }: Connection, { spec, idempotencyKey }: PlannedJob): Promise<JobView> {
  for (let attempt = 0; ; attempt++) {
    const view = await submitJob(jobs, spec, attempt === 0 ? idempotencyKey : `${idempotencyKey}-${attempt}`);
    if (view.phase !== "FAILED" && view.phase !== "CANCELLED") return view;
  }
}

/** Brings what is known of a job and its evaluations up to date. */
async function look(subject: Subject, { connection: { jobs }, redis }: StudyRunOptions): Promise<void> {
  const { planned, view, finished, failed } = subject;
  if (!isFinal(view.phase)) subject.view = requireJob((await jobs.getJob({ jobId: view.jobId })).job);
  const queued = new Set(await redis.zrange(redisKeys.evaluations(view.jobId), "0", "-1"));
  if (subject.view.phase === "SUCCEEDED" && !subject.isAsked) {
    // The coordinator queues them itself; asking again finds them, and tries those again that failed in an earlier call.
    for (const evaluation of jobSpecToProto(planned.spec).evaluations ?? []) {
      const { evaluations } = await jobs.submitEvaluation({ jobId: view.jobId, evaluation });
      for (const { evaluationId } of evaluations) queued.add(evaluationId);
    }
    subject.isAsked = true;
  }
  subject.ids = [...new Set([...subject.ids, ...queued])];
  for (const id of subject.ids) {
    if (finished.has(id) || failed.has(id)) continue;
    const known = await readAny(redis, planned, id);
    if (known?.kind === "failed") failed.set(id, known.reason);
    else if (known) finished.set(id, known);
  }
}

/** An evaluation that is finished or has failed; undefined while it goes on. */
async function readAny(
  redis: StudyRunOptions["redis"],
  planned: PlannedJob,
  id: string,
): Promise<StudyEvaluation | { readonly kind: "failed"; readonly reason: string } | undefined> {
  const kind = kindOf(planned.spec.evaluations, await redis.hget(redisKeys.evaluation(id), "name"));
  const result = kind === "passkey" ? await readEvaluation(redis, id) : await readLoss(redis, id);
  if (result?.status === "failed") return { kind: "failed", reason: result.reason };
  if (!result) return undefined;
  const tokens = tokensBefore(planned.spec, result.step);
  if ("cells" in result) return isComplete(result) ? { kind: "passkey", tokens, result } : undefined;
  return result.status === "done" ? { kind: "lossByPosition", tokens, result } : undefined;
}

function kindOf(evaluations: readonly EvaluationSpec[], name: string | null): string | undefined {
  const evaluation = evaluations.find((one) => one.name === name);
  return evaluation && evaluationKind(evaluation);
}

function isOver({ view, ids, isAsked, finished, failed }: Subject): boolean {
  if (!isFinal(view.phase)) return false;
  return finished.size + failed.size >= ids.length && (isAsked || view.phase !== "SUCCEEDED");
}

function resultOf({ planned, view, finished, failed }: Subject): JobResult {
  const { name, grid, values, spec } = planned;
  return {
    name,
    grid,
    values,
    jobId: view.jobId,
    phase: view.phase,
    reason: view.reason,
    step: view.step,
    tokens: view.tokens,
    loss: view.loss,
    parameters: view.parameters,
    stateFloats: laneStateFloats(spec.model),
    trainTokens: trainedLength(planned),
    seconds: (view.updatedAtMs - view.submittedAtMs) / 1000,
    engine: view.engine,
    spec,
    evaluations: [...finished.values()].sort((a, b) => a.result.evaluationId.localeCompare(b.result.evaluationId)),
    failedEvaluations: [...failed].map(([evaluationId, reason]) => ({ evaluationId, reason })),
  };
}
