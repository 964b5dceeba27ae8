import type { JobSpec } from "@segue/core";
import type { TensorRegistry } from "@segue/protocol";
import type { Logger } from "@segue/runtime";
import type { CheckpointStore } from "../checkpoints/checkpoint-store.js";
import type { DueEvaluations } from "../evaluations/due-evaluations.js";
import type { DataSource } from "../feed/step-cutter.js";
import type { JobBook } from "../jobs/job-book.js";
import type { JobMetrics } from "../metrics/job-metrics.js";
import type { StoreFence } from "../store/fence.js";
import type { Demand } from "../workers/allocate.js";
import type { AttachedWorker } from "../workers/attached-worker.js";
import type { Dispatcher } from "./dispatcher.js";
import type { EventLog } from "./event-log.js";
import type { LiveLedger } from "./live-ledger.js";

export interface RunnerDependencies {
  readonly book: JobBook;
  readonly checkpoints: CheckpointStore;
  readonly registry: TensorRegistry;
  readonly data: DataSource;
  readonly metrics: JobMetrics;
  readonly evaluations: Pick<DueEvaluations, "add" | "isNeeded">;
  readonly logger: Logger;
  /** Where this coordinator's Tensors service answers, as workers reach it. */
  readonly address: string;
  readonly events: EventLog;
  readonly fence: StoreFence;
  /** Why a job with this demand has too few workers, in a sentence. */
  readonly shortage: (demand: Demand) => string;
  /** Why a job with this demand leaves free workers aside, in a sentence; empty when it does not. */
  readonly leftAside: (demand: Demand) => string;
  /** The job could use other workers than it has. */
  readonly wantsWorkers: () => void;
  /** The job has no more use for the worker. */
  readonly release: (worker: AttachedWorker) => void;
}

/** What the parts of one job's runner share. */
export interface RunnerParts extends RunnerDependencies {
  readonly jobId: string;
  readonly spec: JobSpec;
  readonly ledger: LiveLedger;
  /** Workers that the job has claimed, by id. */
  readonly workers: Map<string, AttachedWorker>;
  readonly dispatcher: Dispatcher;
}
