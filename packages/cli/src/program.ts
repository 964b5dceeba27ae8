import { Command } from "commander";
import { addCapacityCommand } from "./commands/capacity.js";
import { addCertsCommand } from "./commands/certs.js";
import { addChaosCommand } from "./commands/chaos.js";
import { addCheckpointsCommand } from "./commands/checkpoints.js";
import { addClusterCommand } from "./commands/cluster.js";
import { addEditCommand } from "./commands/edit.js";
import { addEvaluateCommand } from "./commands/evaluate.js";
import { addExportCommand } from "./commands/export.js";
import { addGenerateCommand } from "./commands/generate.js";
import { addJobCommands } from "./commands/jobs.js";
import { addMemoryCommand } from "./commands/memory.js";
import { addReplayCommand } from "./commands/replay.js";
import { addReportCommand } from "./commands/report.js";
import { addStatesCommand } from "./commands/states.js";
import { addStudyCommand } from "./commands/study.js";
import { addSubmitCommand } from "./commands/submit.js";
import { addTokenizeCommand } from "./commands/tokenize.js";
import { addVerifyCommand } from "./commands/verify.js";
import { addWatchCommand } from "./commands/watch.js";
import { addWorkersCommand } from "./commands/workers.js";
import { asFailure, EXIT, exitCodeOf, failureJson, renderFailure, ReportedFailure } from "./failure.js";
import type { CliRuntime } from "./runtime.js";

const EXIT_CODES = `
Exit codes:
    0  done
    1  refused or failed
    2  the command line or the input is not right
    3  the coordinator (or Redis) does not answer
    4  the watched job failed or was cancelled
  130  interrupted
`;

export function createProgram(runtime: CliRuntime): Command {
  const program = new Command("segue")
    .description("Trains recurrent language models on documents of any length.")
    .version("0.1.0")
    .addHelpText("after", EXIT_CODES)
    .showSuggestionAfterError()
    .helpCommand(false)
    // Errors are thrown, so that every failure is printed in one form by runCli.
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void runtime.stdout.write(text),
      writeErr: (text) => void runtime.stderr.write(text),
      outputError: () => undefined,
    });
  addSubmitCommand(program, runtime);
  addJobCommands(program, runtime);
  addEditCommand(program, runtime);
  addWatchCommand(program, runtime);
  addWorkersCommand(program, runtime);
  addCheckpointsCommand(program, runtime);
  addEvaluateCommand(program, runtime);
  addStudyCommand(program, runtime);
  addExportCommand(program, runtime);
  addClusterCommand(program, runtime);
  addGenerateCommand(program, runtime);
  addTokenizeCommand(program, runtime);
  addStatesCommand(program, runtime);
  addReportCommand(program, runtime);
  addCapacityCommand(program, runtime);
  addCertsCommand(program, runtime);
  addVerifyCommand(program, runtime);
  addMemoryCommand(program, runtime);
  addReplayCommand(program, runtime);
  addChaosCommand(program, runtime);
  return program;
}

/** Runs one command line (without node and script) and returns its exit code; prints its failure. */
export async function runCli(args: readonly string[], runtime: CliRuntime): Promise<number> {
  try {
    await createProgram(runtime).parseAsync(args, { from: "user" });
    return EXIT.ok;
  } catch (error) {
    if (error instanceof ReportedFailure) return error.exitCode;
    // What was cut off fails in many ways, none of which is news to whoever pressed Ctrl-C.
    if (runtime.signal.aborted) return EXIT.interrupted;
    const failure = asFailure(error);
    // --help and --version come as errors, too.
    if (failure.code === "USAGE" && isPrintedHelp(error))
      return (error as { exitCode: number }).exitCode === 0 ? EXIT.ok : EXIT.usage;
    if (args.includes("--json")) runtime.stdout.write(`${failureJson(failure)}\n`);
    else runtime.stderr.write(`${renderFailure(failure)}\n`);
    return exitCodeOf(failure);
  }
}

function isPrintedHelp(error: unknown): boolean {
  const code = (error as { code?: string }).code ?? "";
  return ["commander.helpDisplayed", "commander.help", "commander.version"].includes(code);
}
