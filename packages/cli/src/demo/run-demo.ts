import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseJobSpec, type JobSpec } from "@segue/core";
import { connectRedis, createLogger } from "@segue/runtime";
import { startLocalCluster, type LocalCluster } from "../cluster/local-cluster.js";
import { crashText } from "../commands/cluster.js";
import { submitJob } from "../commands/submit-job.js";
import { connect, type Connection } from "../connection.js";
import { waitForEvaluation } from "../evaluation/read-evaluation.js";
import { Output, type CliRuntime } from "../runtime.js";
import type { JobView } from "../show/job-view.js";
import { ProgressView } from "../show/progress.js";
import { evaluateBothWays } from "./evaluate-job.js";
import { measureSpeed } from "./measure-speed.js";
import { controlSpec, planDemo, plannedSpec } from "./plan.js";
import { DEVIATION, evaluationLine, planText, resultText, type DemoJob, type DemoResult } from "./report.js";
import { trainJob, type TrainedJob } from "./train-job.js";
import { completeEvaluations, watchEvaluations } from "./watch-evaluations.js";

export interface DemoOptions {
  /** From the start of the demo to its end, about. */
  readonly minutes: number;
  /** Leave the cluster running until Ctrl-C. */
  readonly keep: boolean;
  readonly json: boolean;
}

interface Queued {
  readonly evaluationIds: readonly string[];
}

const WORKERS = 2;
const RECIPE = new URL("../../../../recipes/passkey-demo.yaml", import.meta.url);
/** Kept free of training: the last heat maps and an orderly stop. */
const CLOSING_SHARE = 0.12;
/** Left of the time when everything has started: where that takes longer than usual, the demo does. */
const LEAST_TRAINING_SHARE = 0.7;
/** Of the time for training that the first job may take: two workers exchange gradients, the control's one does not. */
const FIRST_JOB_SHARE = 0.55;

/** Starts a cluster in a temporary folder, trains with and without the carried state, evaluates, prints, and stops it again. */
export async function runDemo(options: DemoOptions, runtime: CliRuntime): Promise<void> {
  const startedAtMs = Date.now();
  const output = new Output(runtime, options.json);
  const dir = await mkdtemp(join(tmpdir(), "segue-demo-"));
  let cluster: LocalCluster | undefined;
  try {
    output.note("starting coordinator, two workers, evaluator, dashboard and a private Redis");
    cluster = await startLocalCluster({
      dir,
      workers: WORKERS,
      onCrash: (crash) => void runtime.stderr.write(`${crashText(crash)}\n`),
    });
    output.note(`dashboard: ${cluster.dashboard}`);
    const result = await new Demo(cluster, options, runtime, startedAtMs).run();
    output.result(result, () => resultText(result, output.colour));
    if (options.keep && !runtime.signal.aborted) {
      output.note(
        `dashboard: ${cluster.dashboard}, coordinator: ${cluster.coordinator}, logs: ${cluster.logsDir}; Ctrl-C stops all`,
      );
      await once(runtime.signal, "abort");
    }
  } finally {
    await cluster?.close();
    await rm(dir, { recursive: true, force: true });
  }
}

/** The two jobs of one demo, one after the other, on a cluster that runs. */
class Demo {
  readonly #signal: AbortSignal;
  readonly #startedAtMs: number;
  readonly #totalMs: number;
  readonly #output: Output;
  readonly #progress: ProgressView | undefined;
  readonly #connection: Connection;
  readonly #redis: ReturnType<typeof connectRedis>;

  constructor(cluster: LocalCluster, { minutes, json }: DemoOptions, runtime: CliRuntime, startedAtMs: number) {
    this.#signal = runtime.signal;
    this.#startedAtMs = startedAtMs;
    this.#totalMs = 60_000 * minutes;
    this.#output = new Output(runtime, json);
    this.#progress = json ? undefined : new ProgressView(this.#output.progressTarget);
    this.#connection = connect({ coordinator: cluster.coordinator }, runtime.env);
    this.#redis = connectRedis(cluster.redisUrl, { logger: createLogger("demo", "warn"), role: "reader" });
  }

  async run(): Promise<DemoResult> {
    const over = new AbortController();
    try {
      const recipe = parseJobSpec(await readFile(RECIPE, "utf8")).spec;
      this.#output.note("measuring how fast this machine trains");
      const measuring = { measureMs: this.#totalMs / 60, signal: this.#signal };
      const speed = await measureSpeed(this.#connection.jobs, recipe, measuring);
      // Processes start and kernels are compiled once, however long it takes.
      const endsAtMs = Math.max(this.#startedAtMs + this.#totalMs, Date.now() + LEAST_TRAINING_SHARE * this.#totalMs);
      const trainingEndsAtMs = endsAtMs - CLOSING_SHARE * this.#totalMs;
      const plan = planDemo(recipe, speed.tokensPerSecond, (endsAtMs - Date.now()) / 1000);
      const spec = plannedSpec(recipe, plan);
      const control = controlSpec(spec);

      const job = await submitJob(this.#connection.jobs, spec);
      this.#output.note(`${planText(speed, plan, job)}\n${DEVIATION}\n`);
      const firstEndsAtMs = Date.now() + FIRST_JOB_SHARE * (trainingEndsAtMs - Date.now());
      const carried = await this.#train(job, spec, firstEndsAtMs, over.signal);

      this.#output.note("\nnow the same with the carried state switched off, on one worker: it computes the same bits as two");
      const uncarried = await this.#train(await submitJob(this.#connection.jobs, control), control, trainingEndsAtMs, over.signal);

      await this.#evaluated([...carried.evaluationIds, ...uncarried.evaluationIds], endsAtMs);
      return {
        engine: carried.last.engine,
        parameters: carried.last.parameters,
        recipeSteps: recipe.train.steps,
        segmentTokens: recipe.tbptt.segmentTokens,
        carried: await this.#summary(carried, spec, WORKERS),
        control: await this.#summary(uncarried, control, control.workers.max),
        seconds: (Date.now() - this.#startedAtMs) / 1000,
        deviation: DEVIATION.replace("\n", " "),
      };
    } finally {
      over.abort();
      this.#connection.close();
      this.#redis.disconnect();
    }
  }

  /** Trains a job, announcing its evaluations until the signal aborts, and queues those of where it ended. */
  async #train({ jobId }: JobView, spec: JobSpec, endsAtMs: number, over: AbortSignal): Promise<TrainedJob & Queued> {
    void watchEvaluations(this.#redis, jobId, over, (result) => {
      if (result.carryState === spec.tbptt.carrySsm) this.#progress?.note(evaluationLine(result, spec.tbptt.segmentTokens));
    }).catch(() => undefined);
    const trained = await trainJob(this.#connection, jobId, { signal: this.#signal, endsAtMs, progress: this.#progress });
    return { ...trained, evaluationIds: await evaluateBothWays(this.#connection, jobId, spec) };
  }

  /** Waits for evaluations, but not beyond the demo's end. */
  async #evaluated(ids: readonly string[], endsAtMs: number): Promise<void> {
    const remaining = AbortSignal.any([this.#signal, AbortSignal.timeout(Math.max(1_000, endsAtMs - Date.now()))]);
    try {
      await Promise.all(ids.map((id) => waitForEvaluation(this.#redis, id, { signal: remaining })));
    } catch (error) {
      if (!remaining.aborted || this.#signal.aborted) throw error;
      this.#output.note("the time is up: the last evaluations are not complete");
    }
  }

  async #summary({ last, firstLoss, tokensPerSecond }: TrainedJob, { tbptt }: JobSpec, workers: number): Promise<DemoJob> {
    const evaluations = await completeEvaluations(this.#redis, last.jobId);
    return {
      jobId: last.jobId,
      workers,
      steps: last.step,
      tokens: last.tokens,
      tokensPerSecond,
      firstLoss,
      lastLoss: last.loss,
      evaluations: evaluations.filter(({ carryState }) => carryState === tbptt.carrySsm),
      otherwise: evaluations.find(({ carryState }) => carryState !== tbptt.carrySsm),
    };
  }
}
