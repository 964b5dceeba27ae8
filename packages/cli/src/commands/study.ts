import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Option, type Command } from "commander";
import { SegueError, tokensBefore } from "@segue/core";
import { startLocalCluster, type LocalCluster } from "../cluster/local-cluster.js";
import { addConnectionOptions, connect, connectReader, type ConnectionOptions } from "../connection.js";
import { asFailure, EXIT, ReportedFailure } from "../failure.js";
import { wholeNumber } from "../numbers.js";
import { Output, type CliRuntime } from "../runtime.js";
import { formatShort } from "../show/format.js";
import { renderTable } from "../show/table.js";
import { analyse } from "../study/analyses.js";
import { writeReport } from "../report/write-report.js";
import { planStudy, type PlannedJob } from "../study/plan.js";
import { runStudy } from "../study/run-study.js";
import { StudyProgressView } from "../study/progress-view.js";
import { readStudy } from "../study/study-spec.js";
import { studyReport } from "../study/study-report.js";
import { studyText } from "../study/study-text.js";
import { crashText } from "./cluster.js";

interface StudyOptions extends ConnectionOptions {
  readonly validate?: boolean;
  readonly local?: boolean;
  readonly out?: string;
  readonly workers: number;
  readonly evaluators: number;
  readonly engine: "auto" | "cuda" | "cpu" | "tfjs";
}

export function addStudyCommand(program: Command, runtime: CliRuntime): void {
  addConnectionOptions(program.command("study <file>"))
    .description(
      "run a study: a grid of training jobs, their evaluations, and what follows from them; the same command goes on where it stood",
    )
    .option("--validate", "only check the study and list its jobs")
    .option("--out <dir>", "where results.json and the report go, and the cluster of --local (default: study-<name>)")
    .option("--local", "on a cluster of its own, started here and stopped at the end")
    .option("--workers <count>", "local: workers, each of which trains one job at a time", wholeNumber(1, 64), 2)
    .option("--evaluators <count>", "local: evaluators", wholeNumber(1, 64), 1)
    .addOption(new Option("--engine <name>", "local: engine").choices(["auto", "cuda", "cpu", "tfjs"]).default("auto"))
    .addHelpText(
      "after",
      "\nWithout --local the coordinator is that of the other commands, and REDIS_URL must be its Redis.\n" +
        "\nExamples:\n  segue study recipes/studies/cpu.yaml --validate\n  segue study recipes/studies/cpu.yaml --local\n" +
        "  segue study recipes/studies/h200.yaml --local --engine cuda --workers 6\n",
    )
    .action((file: string, options: StudyOptions) => study(file, options, runtime));
}

async function study(file: string, options: StudyOptions, runtime: CliRuntime): Promise<void> {
  const output = new Output(runtime, options.json === true);
  const found = await readStudy(file);
  const jobs = planStudy(found);
  if (options.validate === true) {
    const listed = jobs.map(({ name, grid, values, spec, warnings }) => ({ name, grid, values, spec, warnings }));
    output.result({ study: found.name, jobs: listed, analyses: found.analyses }, () => jobList(jobs));
    return;
  }
  const out = options.out ?? `study-${found.name}`;
  await mkdir(out, { recursive: true });
  let cluster: LocalCluster | undefined;
  try {
    if (options.local === true) cluster = await localCluster(join(out, "cluster"), options, output, runtime);
    const results = await resultsOf(jobs, options, cluster, output, runtime);
    const analyses = analyse(found, results);
    const { name, description } = found;
    const whole = { study: name, description, finishedAt: new Date().toISOString(), jobs: results, analyses };
    await writeFile(join(out, "results.json"), `${JSON.stringify(whole, null, 1)}\n`);
    output.result(whole, () => studyText(results, analyses));
    const { page } = await writeReport(join(out, "report"), studyReport(found, results, analyses));
    output.note(`\nwritten: ${join(out, "results.json")}, ${page}`);
    const failed = results.filter(({ phase }) => phase !== "SUCCEEDED");
    const unknown = results.flatMap(({ failedEvaluations }) => failedEvaluations);
    for (const { evaluationId, reason } of unknown) output.note(`${evaluationId} could not be finished: ${reason}`);
    if (failed.length > 0) throw new ReportedFailure(EXIT.jobFailed);
    if (unknown.length > 0) throw new ReportedFailure(EXIT.failed);
  } finally {
    await cluster?.close();
  }
}

async function resultsOf(
  jobs: readonly PlannedJob[],
  options: StudyOptions,
  cluster: LocalCluster | undefined,
  output: Output,
  runtime: CliRuntime,
) {
  const connection = connect(cluster ? { ...options, coordinator: cluster.coordinator } : options, runtime.env);
  try {
    const redisUrl = cluster?.redisUrl ?? connection.redisUrl;
    if (redisUrl === undefined) {
      throw new SegueError("REDIS_URL_MISSING", "Results are read from Redis: set REDIS_URL to the coordinator's, or use --local.");
    }
    const redis = connectReader(redisUrl);
    const progress = output.json ? undefined : new StudyProgressView(output.progressTarget);
    try {
      const { signal } = runtime;
      return await runStudy(jobs, { connection, redis, signal, onProgress: (state) => progress?.update(state) });
    } finally {
      progress?.end();
      redis.disconnect();
    }
  } catch (error) {
    throw asFailure(error, connection.coordinator);
  } finally {
    connection.close();
  }
}

async function localCluster(
  dir: string,
  { workers, evaluators, engine }: StudyOptions,
  output: Output,
  runtime: CliRuntime,
): Promise<LocalCluster> {
  output.note(`starting a coordinator, ${workers} workers, ${evaluators} evaluators and a private Redis; logs go to ${dir}/logs`);
  return startLocalCluster({
    ...{ dir, workers, evaluators, engine, dashboard: false },
    onCrash: (crash) => void runtime.stderr.write(`${crashText(crash)}\n`),
  });
}

function jobList(jobs: readonly PlannedJob[]): string {
  return renderTable<PlannedJob>(
    [
      { title: "JOB", value: ({ name }) => name },
      { title: "STEPS", value: ({ spec }) => String(spec.train.steps), right: true },
      { title: "TOKENS", value: ({ spec }) => formatShort(tokensBefore(spec, spec.train.steps)), right: true },
      { title: "EVALUATIONS", value: ({ spec }) => String(spec.evaluations.length), right: true },
    ],
    jobs,
  );
}
