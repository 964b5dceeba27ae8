import { InvalidArgumentError, Option, type Command } from "commander";
import { EDITABLE_SETTINGS } from "@segue/core";
import { addConnectionOptions, withConnection, type Connection, type ConnectionOptions } from "../connection.js";
import type { CliRuntime, Output } from "../runtime.js";
import { requireJob } from "../show/job-view.js";

export type Settings = Record<string, string>;

interface EditOptions extends ConnectionOptions {
  readonly set: Settings;
}

export function addEditCommand(program: Command, runtime: CliRuntime): void {
  addConnectionOptions(program.command("edit <job>"))
    .description("change settings of a paused job, from its next step on")
    .addOption(settingsOption().makeOptionMandatory())
    .addHelpText(
      "after",
      `\nCan change: ${EDITABLE_SETTINGS.join(", ")}.\n\nExamples:\n` +
        "  segue edit text-7f3a --set optimizer.learningRate=1e-4 --set schedule.decaySteps=500\n" +
        "  segue edit text-7f3a --set 'evaluations=[{name: short, passkey: {lengths: [1024]}}]'\n",
    )
    .action((jobId: string, options: EditOptions) =>
      withConnection(runtime, options, async ({ connection, output }) => {
        const view = await editJob(connection, output, jobId, options.set);
        output.result(view, () => `${jobId} is changed: ${Object.keys(options.set).join(", ")}; go on with: segue resume ${jobId}`);
      }),
    );
}

/** `--set path=value`, as often as wanted. */
export function settingsOption(): Option {
  return new Option("--set <path=value...>", "a setting, as in the job spec, and its new value in YAML").argParser(
    (text: string, before: Settings | undefined): Settings => {
      const at = text.indexOf("=");
      if (at < 1) throw new InvalidArgumentError("Write it as path=value, for example train.steps=2000.");
      return { ...before, [text.slice(0, at).trim()]: text.slice(at + 1) };
    },
  );
}

export async function editJob({ jobs }: Connection, output: Output, jobId: string, settings: Settings) {
  const { job, warnings } = await jobs.editJob({ jobId, settings });
  for (const warning of warnings) output.note(`warning: ${warning}`);
  return requireJob(job);
}
