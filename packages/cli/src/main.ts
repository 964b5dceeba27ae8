import { runCli } from "./program.js";

const stop = new AbortController();
const onSignal = (signal: NodeJS.Signals): void => {
  // A command that has nothing to tidy up, or is stuck in it, ends at the second signal at the latest.
  if (stop.signal.aborted && signal === "SIGTERM") process.exit(143);
  stop.abort();
};
process.on("SIGINT", onSignal).on("SIGTERM", onSignal).on("SIGHUP", onSignal);
// `segue jobs | head` closes the pipe early.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));

process.exitCode = await runCli(process.argv.slice(2), {
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  signal: stop.signal,
});
