import { Command, InvalidArgumentError } from "commander";
import { runDemo } from "./demo/run-demo.js";
import { asFailure, EXIT, exitCodeOf, failureJson, renderFailure } from "./failure.js";

const DEFAULT_MINUTES = 4.75;
const SHORT_MINUTES = 0.5;

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => stop.abort());

const program = new Command("demo")
  .description(
    "Trains a small Mamba-2 on documents several segments long, on a cluster on this machine, and shows what it carries.",
  )
  .option("--minutes <minutes>", "how long the demo may take", minutesOf, DEFAULT_MINUTES)
  .option("--short", `only show that everything works, in about ${60 * SHORT_MINUTES} seconds`)
  .option("--keep", "leave the cluster and its dashboard running until Ctrl-C")
  .option("--json", "print the result as JSON on stdout and nothing else")
  .addHelpText("after", "\nExamples:\n  npm run demo\n  npm run demo -- --minutes 2 --keep\n")
  // Help and wrong options end the process by themselves.
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? EXIT.ok : EXIT.usage))
  .parse();
const { minutes, short, keep, json } = program.opts<{ minutes: number; short?: boolean; keep?: boolean; json?: boolean }>();

try {
  await runDemo(
    { minutes: short === true ? SHORT_MINUTES : minutes, keep: keep === true, json: json === true },
    { stdout: process.stdout, stderr: process.stderr, env: process.env, signal: stop.signal },
  );
} catch (error) {
  const failure = asFailure(error);
  if (stop.signal.aborted) {
    process.exitCode = EXIT.interrupted;
  } else {
    if (json === true) process.stdout.write(`${failureJson(failure)}\n`);
    else process.stderr.write(`${renderFailure(failure)}\n`);
    process.exitCode = exitCodeOf(failure);
  }
}

function minutesOf(text: string): number {
  const value = Number(text);
  if (!(value > 0 && value <= 600)) throw new InvalidArgumentError("It must be a number of minutes, at most 600.");
  return value;
}
