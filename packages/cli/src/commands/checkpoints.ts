import type { Command } from "commander";
import { addConnectionOptions, withConnection, type ConnectionOptions } from "../connection.js";
import type { CliRuntime } from "../runtime.js";
import { formatBytes, formatCount, formatTime } from "../show/format.js";
import { checkpointView, type CheckpointView } from "../show/job-view.js";
import { renderTable, type Column } from "../show/table.js";

export function addCheckpointsCommand(program: Command, runtime: CliRuntime): void {
  addConnectionOptions(program.command("checkpoints <job>"))
    .description("list a job's checkpoints, newest first; the digest covers weights, optimizer, lane states and cursors")
    .addHelpText(
      "after",
      "\nExamples:\n  segue checkpoints text-7f3a\n  segue checkpoints text-7f3a --json | jq -r '.[0].digest'\n",
    )
    .action((jobId: string, options: ConnectionOptions) =>
      withConnection(runtime, options, async ({ connection, output }) => {
        const { checkpoints } = await connection.jobs.listCheckpoints({ jobId });
        const views = checkpoints.map(checkpointView);
        output.result(views, () => (views.length === 0 ? "no checkpoints yet" : renderTable(columns, views)));
      }),
    );
}

const columns: Column<CheckpointView>[] = [
  { title: "STEP", value: ({ step }) => formatCount(step), right: true },
  { title: "DIGEST", value: ({ digest }) => digest },
  { title: "LOSS", value: ({ step, loss }) => (step > 0 ? loss.toFixed(4) : ""), right: true },
  { title: "TOKENS", value: ({ tokens }) => formatCount(tokens), right: true },
  { title: "SIZE", value: ({ sizeBytes }) => formatBytes(sizeBytes), right: true },
  { title: "WRITTEN", value: ({ createdAtMs }) => formatTime(createdAtMs) },
];
