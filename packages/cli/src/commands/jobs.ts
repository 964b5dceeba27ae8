import type { Command } from "commander";
import { jobSpecToYaml, validateJobSpec } from "@segue/core";
import type { Client, Job, Jobs } from "@segue/protocol";
import { editJob, settingsOption, type Settings } from "./edit.js";
import { addConnectionOptions, withConnection, type ConnectionOptions } from "../connection.js";
import type { CliRuntime } from "../runtime.js";
import { formatCount, formatDuration, formatStepMs, formatShort, formatTime } from "../show/format.js";
import { jobView, requireJob, type JobView, type MemberView } from "../show/job-view.js";
import { stepTimeColumns } from "../show/step-time-columns.js";
import { renderTable, type Column } from "../show/table.js";

const PAGE_SIZE = 200;

export function addJobCommands(program: Command, runtime: CliRuntime): void {
  addConnectionOptions(program.command("jobs"))
    .description("list the jobs, newest first")
    .addHelpText("after", "\nExamples:\n  segue jobs\n  segue jobs --json | jq '.[] | select(.phase == \"RUNNING\") | .jobId'\n")
    .action((options: ConnectionOptions) =>
      withConnection(runtime, options, async ({ connection, output }) => {
        const jobs = (await listJobs(connection.jobs)).map(jobView).sort((a, b) => b.submittedAtMs - a.submittedAtMs);
        output.result(jobs, () =>
          jobs.length === 0 ? "no jobs yet; submit one with: segue submit FILE" : renderTable(columns, jobs),
        );
      }),
    );

  addConnectionOptions(program.command("job <job>"))
    .description("show one job and its effective spec")
    .addHelpText("after", "\nExample:\n  segue job text-7f3a\n")
    .action((jobId: string, options: ConnectionOptions) =>
      withConnection(runtime, options, async ({ connection, output }) => {
        const view = requireJob((await connection.jobs.getJob({ jobId })).job);
        output.result(view, () => jobText(view));
      }),
    );

  const steering = {
    pause: "end the running round, write a checkpoint and release the workers",
    resume: "go on with a paused job",
    cancel: "stop a job for good; its checkpoints stay",
  } as const;
  for (const [verb, description] of Object.entries(steering)) {
    const command = addConnectionOptions(program.command(`${verb} <job>`)).description(description);
    if (verb === "resume") command.addOption(settingsOption());
    command
      .addHelpText("after", `\nExample:\n  segue ${verb} text-7f3a\n`)
      .action((jobId: string, options: ConnectionOptions & { readonly set?: Settings }) =>
        withConnection(runtime, options, async ({ connection, output }) => {
          const { jobs } = connection;
          if (options.set) await editJob(connection, output, jobId, options.set);
          const call = { pause: jobs.pauseJob, resume: jobs.resumeJob, cancel: jobs.cancelJob }[verb as keyof typeof steering];
          const view = requireJob((await call({ jobId })).job);
          output.result(view, () => `${view.jobId} ${view.phase.toLowerCase()}${view.reason === "" ? "" : `: ${view.reason}`}`);
        }),
      );
  }
}

async function listJobs(jobs: Client<typeof Jobs>): Promise<Job[]> {
  const all: Job[] = [];
  let pageToken = "";
  do {
    const page = await jobs.listJobs({ pageSize: PAGE_SIZE, pageToken });
    all.push(...page.jobs);
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return all;
}

const columns: Column<JobView>[] = [
  { title: "JOB", value: ({ jobId }) => jobId },
  { title: "PHASE", value: ({ phase }) => phase.toLowerCase() },
  { title: "STEP", value: ({ step, totalSteps }) => `${formatCount(step)}/${formatCount(totalSteps)}`, right: true },
  { title: "LOSS", value: ({ step, loss }) => (step > 0 ? loss.toFixed(4) : ""), right: true },
  { title: "TOKENS/S", value: ({ tokensPerSecond }) => (tokensPerSecond > 0 ? formatShort(tokensPerSecond) : ""), right: true },
  { title: "WORKERS", value: ({ workers }) => String(workers), right: true },
  { title: "SUBMITTED", value: ({ submittedAtMs }) => formatTime(submittedAtMs) },
  { title: "REASON", value: ({ reason }) => reason },
];

const memberColumns: Column<MemberView>[] = [
  { title: "WORKER", value: ({ workerId }) => workerId },
  { title: "SHARDS", value: ({ shards }) => String(shards), right: true },
  { title: "MS A SHARD", value: ({ shardMs }) => formatStepMs(shardMs || undefined), right: true },
  ...stepTimeColumns,
  { title: "", value: ({ straggler }) => (straggler ? "slow" : "") },
];

function jobText(job: JobView): string {
  const facts: [string, string][] = [
    ["job", job.jobId],
    ["phase", job.phase.toLowerCase() + (job.reason === "" ? "" : `: ${job.reason}`)],
    ["step", `${formatCount(job.step)} of ${formatCount(job.totalSteps)}`],
    ["tokens", `${formatCount(job.tokens)} of ${formatCount(job.totalTokens)}`],
    ["loss", job.step > 0 ? job.loss.toFixed(6) : "not yet"],
    ["speed", job.tokensPerSecond > 0 ? `${formatShort(job.tokensPerSecond)} tokens/s` : "not yet"],
    ["time left", job.etaSeconds > 0 ? formatDuration(job.etaSeconds) : "unknown"],
    ["workers", `${job.workers}${job.engine === "" ? "" : ` (${job.engine})`}`],
    ...(job.transport === "" ? [] : [["gradients by", job.transport] as [string, string]]),
    ["parameters", formatCount(job.parameters)],
    ["attempt", String(job.attempt)],
    ["documents", `${formatCount(job.documentsRead)} read, ${formatCount(job.documentsDroppedShort)} dropped as too short`],
    [
      "checkpoint",
      job.checkpointDigest === "" ? "none yet" : `step ${formatCount(job.checkpointStep)}, digest ${job.checkpointDigest}`,
    ],
    ...(job.notDurable === "" ? [] : [["not durable", job.notDurable] as [string, string]]),
    ...(job.evaluationsNotQueued === "" ? [] : [["not queued", job.evaluationsNotQueued] as [string, string]]),
    ...(job.checkpointWarning === "" ? [] : [["warning", job.checkpointWarning] as [string, string]]),
    ...(job.leftOut === "" ? [] : [["left out", job.leftOut] as [string, string]]),
    ["submitted", formatTime(job.submittedAtMs)],
  ];
  const width = Math.max(...facts.map(([name]) => name.length));
  const lines = facts.map(([name, value]) => `${name.padEnd(width)}  ${value}`);
  if (job.members.length > 0) lines.push("", renderTable(memberColumns, job.members));
  return job.spec === undefined
    ? lines.join("\n")
    : [...lines, "", jobSpecToYaml(validateJobSpec(job.spec).spec).trimEnd()].join("\n");
}
