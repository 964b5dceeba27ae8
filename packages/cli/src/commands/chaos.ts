import { existsSync } from "node:fs";
import { Option, type Command } from "commander";
import { parseJobSpec, SegueError, validateJobSpec, type JobSpec } from "@segue/core";
import { runChaos, type ChaosOptions, type ChaosResult } from "../chaos/run-chaos.js";
import { addConnectionOptions, connect, type ConnectionOptions } from "../connection.js";
import { asFailure, EXIT, ReportedFailure } from "../failure.js";
import { wholeNumber } from "../numbers.js";
import { readSpec } from "../read-spec.js";
import { Output, type CliRuntime } from "../runtime.js";
import { jobView } from "../show/job-view.js";
import { ProgressView } from "../show/progress.js";
import { renderTable } from "../show/table.js";

interface ChaosCommandOptions extends ConnectionOptions {
  readonly workers: number;
  readonly every: number;
  readonly seed: number;
  readonly killCoordinator?: boolean;
  readonly engine: ChaosOptions["engine"];
}

export function addChaosCommand(program: Command, runtime: CliRuntime): void {
  addConnectionOptions(program.command("chaos <job>"))
    .description("train a job again while its workers are killed at random, and prove that nothing changed")
    .option("--workers <count>", "workers of the cluster that is started for it on this machine", wholeNumber(1, 64), 3)
    .option("--every <seconds>", "mean time between deaths", wholeNumber(1, 86_400), 10)
    .option("--seed <seed>", "which deaths", wholeNumber(0, 2 ** 32 - 1), 0)
    .option("--kill-coordinator", "the coordinator may die, too")
    .addOption(new Option("--engine <name>", "engine of the workers").choices(["auto", "cuda", "cpu", "tfjs"]).default("auto"))
    .addHelpText(
      "after",
      "\n<job> is a job spec (YAML file), which is trained undisturbed first, or the id of a job of the coordinator: of one that\n" +
        "succeeded only the disturbed run is made. Paths in its spec must exist on this machine.\n\n" +
        "Examples:\n  segue chaos recipes/passkey-demo.yaml --every 5\n  segue chaos passkey-demo-1 --kill-coordinator\n",
    )
    .action((job: string, options: ChaosCommandOptions) => chaos(job, options, runtime));
}

async function chaos(job: string, options: ChaosCommandOptions, runtime: CliRuntime): Promise<void> {
  const output = new Output(runtime, options.json === true);
  const subject = await subjectOf(job, options, runtime);
  const { workers, engine, seed, every } = options;
  const progress = output.json ? undefined : new ProgressView(output.progressTarget);
  const result = await runChaos(
    {
      ...subject,
      workers,
      engine,
      seed,
      everyMs: 1000 * every,
      killCoordinator: options.killCoordinator === true,
      onNote: (text) => (progress ? progress.note(text) : undefined),
      onChange: (view) => progress?.update(view),
    },
    runtime,
  );
  progress?.end();
  output.result(result, () => resultText(result));
  if (!result.equal) throw new ReportedFailure(EXIT.failed);
}

/** The spec without its evaluations, which change nothing, and how it ends undisturbed where that is known. */
async function subjectOf(
  job: string,
  options: ConnectionOptions,
  runtime: CliRuntime,
): Promise<Pick<ChaosOptions, "spec" | "undisturbed">> {
  const bare = (spec: JobSpec): JobSpec => ({ ...spec, evaluations: [] });
  if (existsSync(job)) return { spec: bare(parseJobSpec(await readSpec(job)).spec) };
  const connection = connect(options, runtime.env);
  try {
    const answer = await connection.jobs.getJob({ jobId: job });
    if (!answer.job) throw new SegueError("INTERNAL", "The coordinator answered without a job.", { status: "INTERNAL" });
    const { spec, phase, checkpointStep: step, checkpointDigest: digest } = jobView(answer.job);
    return { spec: bare(validateJobSpec(spec).spec), undisturbed: phase === "SUCCEEDED" ? { step, digest } : undefined };
  } catch (error) {
    throw asFailure(error, connection.coordinator);
  } finally {
    connection.close();
  }
}

function resultText({ undisturbed, disturbed, deaths, equal }: ChaosResult): string {
  const seconds = (ms: number | undefined): string => (ms === undefined ? "the job ended" : `${(ms / 1000).toFixed(1)} s`);
  const table = renderTable(
    [
      { title: "KILLED", value: ({ name }) => name },
      { title: "AT STEP", value: ({ atStep }) => String(atStep), right: true },
      { title: "NEXT COMMIT AFTER", value: ({ recoveryMs }) => seconds(recoveryMs), right: true },
    ],
    [...deaths],
  );
  const verdict = equal
    ? `after ${deaths.length} deaths the same weights, optimizer, states and cursors`
    : "THE RUNS DIFFER: this is a bug; please report it with the spec and the seed";
  return `${table}\n\nundisturbed  step ${undisturbed.step}  ${undisturbed.digest}\ndisturbed    step ${disturbed.step}  ${disturbed.digest}\n${verdict}`;
}
