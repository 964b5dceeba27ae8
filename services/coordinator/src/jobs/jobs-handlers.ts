import { SegueError, validateJobSpec, type EvaluationSpec, type JobSpec, type ParsedSpec } from "@segue/core";
import type { EvaluationSpec as EvaluationMessage, Handlers, Jobs } from "@segue/protocol";
import { jobSpecInputFromProto, jobSpecToProto, type Logger } from "@segue/runtime";
import type { CheckpointStore } from "../checkpoints/checkpoint-store.js";
import type { DueEvaluations } from "../evaluations/due-evaluations.js";
import type { DataPlan, DataSource } from "../feed/step-cutter.js";
import type { Scheduler } from "../run/scheduler.js";
import type { EventLog } from "../run/event-log.js";
import { refuseWithoutRoom } from "../workers/room.js";
import { workerInfo } from "../workers/worker-info.js";
import type { WorkerPool } from "../workers/worker-pool.js";
import { editJob } from "./edit-job.js";
import { refuseOtherSpec } from "./idempotency.js";
import type { JobBook } from "./job-book.js";
import { jobToProto } from "./job-view.js";
import { NOT_STARTED } from "./live-status.js";
import { planToProto } from "./plan-data.js";
import { newJobId, planJob, plannedSteps, requestedSpec, type PlannedJob } from "./submit.js";

export interface JobsDependencies {
  readonly book: JobBook;
  readonly scheduler: Scheduler;
  readonly pool: WorkerPool;
  readonly eventsOf: (jobId: string) => EventLog;
  readonly data: DataSource;
  readonly checkpointsOf: (jobId: string) => CheckpointStore;
  readonly evaluations: Pick<DueEvaluations, "submit">;
  readonly logger: Logger;
}

interface Accepted {
  readonly jobId: string;
  readonly warnings: string[];
  readonly plan: DataPlan | undefined;
}

const DEFAULT_PAGE = 100;
const MAX_PAGE = 1_000;

/** The Jobs service. */
export function jobsHandlers(deps: JobsDependencies): Handlers<typeof Jobs> {
  const { book, scheduler, pool, data, checkpointsOf } = deps;
  const answer = (jobId: string) => ({ job: jobToProto(book.get(jobId)) });
  /** @throws SegueError SPEC_INVALID, MEMORY_INSUFFICIENT */
  const planHere = async (parsed: ParsedSpec): Promise<PlannedJob> => {
    const staying = pool.workers.filter(({ draining, expelled }) => !draining && !expelled);
    refuseWithoutRoom(
      parsed.spec,
      staying.map(({ room }) => room),
    );
    return planJob(parsed, data);
  };
  /** What is being accepted right now, by its key. */
  const accepting = new Map<string, { readonly spec: JobSpec; readonly accepted: Promise<Accepted> }>();

  return {
    async submitJob(request) {
      const { idempotencyKey: key } = request;
      const parsed = requestedSpec(request);
      if (request.validateOnly) {
        const planned = await planHere(parsed);
        const { spec, warnings, plan } = planned;
        const at = Date.now();
        const times = { submittedAtMs: at, updatedAtMs: at };
        const record = { jobId: "", spec, phase: "WAITING", reason: "", attempt: 0, ...plannedSteps(planned), ...times } as const;
        const job = { ...jobToProto({ record, live: NOT_STARTED }), phase: 0 };
        return { job, warnings, plan: plan && planToProto(plan) };
      }
      const known = key === "" ? undefined : book.findByKey(key);
      if (known) {
        refuseOtherSpec(known.record, parsed.spec, `the job ${known.record.jobId}`);
        return { job: jobToProto(known), warnings: [] };
      }
      const pending = accepting.get(key);
      if (pending) refuseOtherSpec(pending, parsed.spec, "a job that is being submitted right now");
      const accepted = pending?.accepted ?? accept();
      if (key !== "") accepting.set(key, { spec: pending?.spec ?? parsed.spec, accepted });
      try {
        const { jobId, warnings, plan } = await accepted;
        return { ...answer(jobId), warnings, plan: plan && planToProto(plan) };
      } finally {
        accepting.delete(key);
      }

      async function accept(): Promise<Accepted> {
        const planned = await planHere(parsed);
        const { spec, warnings, plan } = planned;
        const jobId = newJobId(spec.name);
        const now = Date.now();
        await book.add({
          jobId,
          spec,
          phase: "WAITING",
          reason: "waiting for workers",
          attempt: 0,
          ...plannedSteps(planned),
          ...(key === "" ? {} : { idempotencyKey: key }),
          submittedAtMs: now,
          updatedAtMs: now,
        });
        deps.logger.info({ event: "jobSubmitted", jobId, spec }, "a job is submitted");
        scheduler.start(jobId);
        return { jobId, warnings, plan };
      }
    },

    async getJob({ jobId }) {
      return answer(jobId);
    },

    async listJobs({ pageSize, pageToken }) {
      const newestFirst = [...book.jobs].reverse();
      const size = Math.min(pageSize === 0 ? DEFAULT_PAGE : pageSize, MAX_PAGE);
      const last = pageToken === "" ? -1 : newestFirst.findIndex(({ record }) => record.jobId === pageToken);
      if (pageToken !== "" && last < 0)
        throw new SegueError("PAGE_TOKEN_INVALID", "The page token is not one that ListJobs returned.");
      const page = newestFirst.slice(last + 1, last + 1 + size);
      const isMore = last + 1 + size < newestFirst.length;
      return { jobs: page.map(jobToProto), nextPageToken: isMore ? (page.at(-1)?.record.jobId ?? "") : "" };
    },

    async *watchJob({ jobId }, { signal }) {
      for await (const view of book.watch(jobId, signal)) yield { job: jobToProto(view) };
    },

    async pauseJob({ jobId }) {
      await scheduler.pause(jobId);
      return answer(jobId);
    },

    async resumeJob({ jobId }) {
      await scheduler.resume(jobId);
      return answer(jobId);
    },

    async cancelJob({ jobId }) {
      await scheduler.cancel(jobId);
      return answer(jobId);
    },

    async editJob({ jobId, settings }) {
      const warnings = await editJob(deps, jobId, settings);
      deps.logger.info({ event: "jobEdited", jobId, settings }, "a job is edited");
      return { ...answer(jobId), warnings: [...warnings] };
    },

    async listWorkers() {
      const byName = [...pool.workers].sort((a, b) => (a.hello.name < b.hello.name ? -1 : 1));
      return { workers: byName.map((worker) => workerInfo(worker, scheduler.shardsOf(worker))) };
    },

    async drainWorker({ workerId }) {
      const worker = pool.drain(workerId);
      return { worker: workerInfo(worker, scheduler.shardsOf(worker)) };
    },

    async listCheckpoints({ jobId }) {
      book.get(jobId);
      const checkpoints = await checkpointsOf(jobId).list();
      return {
        checkpoints: checkpoints.map(({ folder, manifest }) => ({
          step: manifest.step,
          digest: manifest.digest,
          createdAtMs: BigInt(manifest.createdAtMs),
          sizeBytes: BigInt(manifest.sizeBytes),
          tokens: BigInt(manifest.tokens),
          loss: manifest.loss,
          path: folder,
        })),
      };
    },

    async submitEvaluation({ jobId, step, evaluation }) {
      const { record } = book.get(jobId);
      const checkpoints = await checkpointsOf(jobId).list();
      const checkpoint = step === 0 ? checkpoints[0] : checkpoints.find(({ manifest }) => manifest.step === step);
      if (!checkpoint) {
        const which = step === 0 ? "no checkpoint yet" : `no checkpoint at step ${step}`;
        throw new SegueError("CHECKPOINT_NOT_FOUND", `The job ${jobId} has ${which}.`, { status: "NOT_FOUND" });
      }
      const checked = checkEvaluation(record.spec, evaluation);
      const { digest, step: foundStep } = checkpoint.manifest;
      const evaluations = await deps.evaluations.submit({ jobId, step: foundStep, digest, evaluation: checked });
      return { ...evaluations[0], step: foundStep, evaluations };
    },
  };
}

/** Fills in the defaults and checks one evaluation by the rules of the spec it would be part of. */
function checkEvaluation(spec: JobSpec, evaluation: EvaluationMessage | undefined): EvaluationSpec {
  const message = jobSpecToProto({ ...spec, evaluations: [] });
  const input = jobSpecInputFromProto({ ...message, evaluations: evaluation ? [evaluation] : [] });
  const [checked] = validateJobSpec(evaluation ? input : { ...(input as object), evaluations: [{}] }).spec.evaluations;
  if (!checked) throw new SegueError("SPEC_INVALID", "Give an evaluation.");
  return checked;
}
