import { InvalidArgumentError, Option, type Command } from "commander";
import { EDITABLE_SETTINGS, specInvalid } from "@segue/core";
import { addConnectionOptions, withConnection, type Connection, type ConnectionOptions } from "../connection.js";
import type { CliRuntime, Output } from "../runtime.js";
import { requireJob } from "../show/job-view.js";

export type Settings = Record<string, string>;

interface EditOptions extends ConnectionOptions {
  readonly set?: Settings;
  readonly decayFromHere?: boolean;
}

export function addEditCommand(program: Command, runtime: CliRuntime): void {
  addConnectionOptions(program.command("edit <job>"))
    .description("change settings of a paused job, from its next step on")
    .addOption(settingsOption())
    .option("--decay-from-here", "let the learning rate fall from where it is to the job's end (schedule.decayFrom: here)")
    .addHelpText(
      "after",
      `\nCan change: ${EDITABLE_SETTINGS.join(", ")}.\n\nExamples:\n` +
        "  segue edit text-7f3a --set optimizer.learningRate=1e-4 --set schedule.decaySteps=500\n" +
        "  segue edit text-7f3a --set train.steps=5000 --decay-from-here\n" +
        "  segue edit text-7f3a --set 'evaluations=[{name: short, passkey: {lengths: [1024]}}]'\n",
    )
    .action((jobId: string, options: EditOptions) =>
      withConnection(runtime, options, async ({ connection, output }) => {
        const settings = { ...options.set, ...(options.decayFromHere === true ? { "schedule.decayFrom": "here" } : {}) };
        if (Object.keys(settings).length === 0) throw specInvalid([{ field: "", description: "give --set or --decay-from-here" }]);
        const view = await editJob(connection, output, jobId, settings);
        output.result(view, () => `${jobId} is changed: ${Object.keys(settings).join(", ")}; go on with: segue resume ${jobId}`);
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
