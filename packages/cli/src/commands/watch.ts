import type { Command } from "commander";
import { addConnectionOptions, withConnection, type Connected, type ConnectionOptions } from "../connection.js";
import { JobFailedError } from "../failure.js";
import type { CliRuntime } from "../runtime.js";
import type { JobView } from "../show/job-view.js";
import { ProgressView } from "../show/progress.js";
import { followJob } from "./follow-job.js";

export function addWatchCommand(program: Command, runtime: CliRuntime): void {
  addConnectionOptions(program.command("watch <job>"))
    .description("show how a job goes on until it ends; exit code 4 when it failed or was cancelled")
    .addHelpText("after", "\nExamples:\n  segue watch text-7f3a\n  segue watch text-7f3a --json | jq .loss\n")
    .action((jobId: string, options: ConnectionOptions) =>
      withConnection(runtime, options, (connected) => watchJob(connected, jobId)),
    );
}

/**
 * Shows a job until its end. Ctrl-C ends the watching, not the job.
 * @throws JobFailedError when the job did not succeed
 */
export async function watchJob({ connection, output, signal }: Connected, jobId: string): Promise<void> {
  const progress = new ProgressView(output.progressTarget);
  let last: JobView | undefined;
  try {
    const onAway = (): void => {
      if (!output.json) progress.note("the coordinator is away; waiting for it");
    };
    for await (const job of followJob(connection.jobs, jobId, { signal, onAway })) {
      last = job;
      if (output.json) output.result(job, () => "");
      else progress.update(job);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    if (!output.json)
      progress.note(`The job goes on; \`segue watch ${jobId}\` shows it again, \`segue cancel ${jobId}\` stops it.`);
    return;
  } finally {
    if (!output.json) progress.end();
  }
  if (last?.phase === "FAILED" || last?.phase === "CANCELLED") throw new JobFailedError(jobId, last.phase, last.reason);
}
