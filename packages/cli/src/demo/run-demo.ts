import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseJobSpec, SegueError, type JobSpec } from "@segue/core";
import { connectRedis, createLogger, jobSpecToProto } from "@segue/runtime";
import { startLocalCluster, type LocalCluster } from "../cluster/local-cluster.js";
import { crashText } from "../commands/cluster.js";
import { followJob } from "../commands/follow-job.js";
import { connect, type Connection } from "../connection.js";
import { waitForEvaluation, type EvaluationResult } from "../evaluation/read-evaluation.js";
import { Output, type CliRuntime } from "../runtime.js";
import { isFinal, jobView, type JobView } from "../show/job-view.js";
import { ProgressView } from "../show/progress.js";
import { measureSpeed, type MeasuredSpeed } from "./measure-speed.js";
import { planDemo, plannedSpec } from "./plan.js";
import { DEVIATION, evaluationLine, planText, resultText, type DemoResult } from "./report.js";
import { watchEvaluations } from "./watch-evaluations.js";

export interface DemoOptions {
  /** From the start of the demo to its end, about. */
  readonly minutes: number;
  /** Leave the cluster running until Ctrl-C. */
  readonly keep: boolean;
  readonly json: boolean;
}

const WORKERS = 2;
const RECIPE = new URL("../../../../recipes/passkey-demo.yaml", import.meta.url);
/** Kept free of training: two heat maps at the end and an orderly stop. */
const CLOSING_SHARE = 0.15;

/** Starts a cluster in a temporary folder, trains, evaluates, prints, and stops it again. */
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
    const result = await trainAndEvaluate(cluster, options, runtime, startedAtMs);
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

async function trainAndEvaluate(
  cluster: LocalCluster,
  options: DemoOptions,
  runtime: CliRuntime,
  startedAtMs: number,
): Promise<DemoResult> {
  const totalMs = 60_000 * options.minutes;
  const endsAtMs = startedAtMs + totalMs;
  const { signal } = runtime;
  const output = new Output(runtime, options.json);
  const connection = connect({ coordinator: cluster.coordinator }, runtime.env);
  const redis = connectRedis(cluster.redisUrl, { logger: createLogger("demo", "warn"), role: "reader" });
  const watching = new AbortController();
  const evaluations: EvaluationResult[] = [];
  const progress = options.json ? undefined : new ProgressView(output.progressTarget);
  try {
    const recipe = parseJobSpec(await readFile(RECIPE, "utf8")).spec;
    output.note("measuring how fast this machine trains");
    const speed = await measureSpeed(connection.jobs, recipe, { measureMs: totalMs / 60, signal });
    const plan = planDemo(recipe, speed.tokensPerSecond, (endsAtMs - Date.now()) / 1000);
    const submitted = await submit(connection, plannedSpec(recipe, plan));
    output.note(planText(speed, plan, submitted));
    output.note(`${DEVIATION}\n`);

    const announcing = watchEvaluations(redis, submitted.jobId, watching.signal, (result) => {
      evaluations.push(result);
      if (result.carryState) progress?.note(evaluationLine(result));
    });
    const trainingEndsAtMs = endsAtMs - CLOSING_SHARE * totalMs;
    const { firstLoss, last } = await train(connection, submitted.jobId, { signal, trainingEndsAtMs, progress });
    progress?.end();

    const remaining = AbortSignal.any([signal, AbortSignal.timeout(Math.max(1_000, endsAtMs - Date.now()))]);
    const control = await evaluateEnd(connection, redis, last, recipe, plan.samples, remaining).catch((error: unknown) => {
      if (!remaining.aborted || signal.aborted) throw error;
      output.note("the time is up: the last evaluations are not complete");
      return undefined;
    });
    watching.abort();
    await announcing;
    return summary({ last, firstLoss, speed, recipe, evaluations, control, startedAtMs });
  } finally {
    watching.abort();
    connection.close();
    redis.disconnect();
  }
}

async function submit({ jobs }: Connection, spec: JobSpec): Promise<JobView> {
  const { job } = await jobs.submitJob({ source: { case: "spec", value: jobSpecToProto(spec) } });
  if (!job) throw new SegueError("INTERNAL", "The coordinator answered without a job.", { status: "INTERNAL" });
  return jobView(job);
}

/** Follows the job to its end. When the time runs out before, the job is paused, which leaves a checkpoint to evaluate. */
async function train(
  { jobs }: Connection,
  jobId: string,
  options: { signal: AbortSignal; trainingEndsAtMs: number; progress: ProgressView | undefined },
): Promise<{ firstLoss: number; last: JobView }> {
  let firstLoss: number | undefined;
  const pause = setTimeout(
    () => {
      options.progress?.note("the time for training is up: pausing the job");
      jobs.pauseJob({ jobId }).catch(() => undefined);
    },
    Math.max(0, options.trainingEndsAtMs - Date.now()),
  );
  try {
    for await (const job of followJob(jobs, jobId, { signal: options.signal })) {
      if (job.step > 0) firstLoss ??= job.loss;
      options.progress?.update(job);
      if (job.phase === "FAILED" || job.phase === "CANCELLED") {
        throw new SegueError("DEMO_FAILED", `${jobId} ${job.phase.toLowerCase()}: ${job.reason}`, { status: "ABORTED" });
      }
      if (isFinal(job.phase) || job.phase === "PAUSED") return { firstLoss: firstLoss ?? NaN, last: job };
    }
  } finally {
    clearTimeout(pause);
  }
  throw new SegueError("DEMO_FAILED", `${jobId} is gone.`, { status: "ABORTED" });
}

/** The newest checkpoint with the state carried and, as the control, with the state zeroed at every segment boundary. */
async function evaluateEnd(
  { jobs }: Connection,
  redis: ReturnType<typeof connectRedis>,
  { jobId }: JobView,
  recipe: JobSpec,
  samples: number,
  signal: AbortSignal,
): Promise<EvaluationResult | undefined> {
  let control: EvaluationResult | undefined;
  for (const { name, passkey } of recipe.evaluations) {
    const cells = { ...passkey, lengths: [...passkey.lengths], depths: [...passkey.depths], samples };
    const carried = await jobs.submitEvaluation({ jobId, evaluation: { name, everyCheckpoints: 1, passkey: cells } });
    const zeroed = await jobs.submitEvaluation({
      jobId,
      evaluation: { name: `${name}-state-zeroed`, everyCheckpoints: 1, passkey: { ...cells, carryState: false } },
    });
    await waitForEvaluation(redis, carried.evaluationId, { signal });
    control = await waitForEvaluation(redis, zeroed.evaluationId, { signal });
  }
  return control;
}

function summary(found: {
  last: JobView;
  firstLoss: number;
  speed: MeasuredSpeed;
  recipe: JobSpec;
  evaluations: readonly EvaluationResult[];
  control: EvaluationResult | undefined;
  startedAtMs: number;
}): DemoResult {
  const { last, speed } = found;
  return {
    jobId: last.jobId,
    engine: last.engine === "" ? speed.engine : last.engine,
    workers: WORKERS,
    parameters: last.parameters,
    steps: last.step,
    recipeSteps: found.recipe.train.steps,
    tokens: last.tokens,
    tokensPerSecond: last.tokensPerSecond > 0 ? last.tokensPerSecond : speed.tokensPerSecond,
    firstLoss: found.firstLoss,
    lastLoss: last.loss,
    evaluations: found.evaluations.filter(({ carryState }) => carryState).sort((a, b) => a.step - b.step),
    control: found.control,
    seconds: (Date.now() - found.startedAtMs) / 1000,
    deviation: DEVIATION.replace("\n", " "),
  };
}
