import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { SegueError } from "@segue/core";
import type { Report } from "@segue/report";
import { readSettings, settings } from "@segue/runtime";
import { z } from "zod";
import { addJsonOption, connectReader } from "../connection.js";
import { wholeNumber } from "../numbers.js";
import { checkpointReport, reportedStep, statesReport } from "../report/checkpoint-report.js";
import { readFindings } from "../report/read-findings.js";
import { readTraces } from "../report/read-traces.js";
import { traceOf, type NamedTrace } from "../report/states-section.js";
import { writeReport } from "../report/write-report.js";
import { Output, type CliRuntime } from "../runtime.js";

interface ReportOptions {
  readonly step?: number;
  readonly out?: string;
  readonly states?: string;
  readonly trainTokens?: number;
  readonly json?: boolean;
}

const reportSettings = z.object({ REDIS_URL: settings.REDIS_URL.optional() });

export function addReportCommand(program: Command, runtime: CliRuntime): void {
  addJsonOption(program.command("report [job]"))
    .description(
      "write what is known of a checkpoint as one HTML file, with every figure as SVG and PNG and its data as CSV and JSON",
    )
    .option("--step <step>", "step of the checkpoint (default: the newest that was evaluated)", wholeNumber(0, 2 ** 32 - 1))
    .option("--states <file>", "add the statistics that segue states --out wrote; without a job, a report of them alone")
    .option("--train-tokens <tokens>", "training length to mark in the figures of --states", wholeNumber(1, 2 ** 30))
    .option("--out <dir>", "folder to write (default: report-<job>-<step>)")
    .addHelpText(
      "after",
      "\nEvaluations are read from REDIS_URL (cluster up --json prints it): passkeys, losses by position, states and remembrance, with\n" +
        "all their cures side by side.\n\nExamples:\n  segue report text-7f3a\n  segue report text-7f3a --step 4000 --out ./report\n" +
        "  segue report --states states.safetensors --train-tokens 2K\n",
    )
    .action((jobId: string | undefined, options: ReportOptions) => report(jobId, options, runtime));
}

async function report(jobId: string | undefined, options: ReportOptions, runtime: CliRuntime): Promise<void> {
  const output = new Output(runtime, options.json === true);
  const given = options.states === undefined ? undefined : await readTraceFile(options.states, options.trainTokens);
  const { report, name } = jobId === undefined ? ofStates(given) : await ofJob(jobId, options.step, given, runtime);
  const dir = options.out ?? `report-${name}`;
  const { page, figures } = await writeReport(dir, report, runtime.signal);
  output.result({ dir, page, figures, title: report.title }, () => `${report.title}: ${figures} figures\n${page}`);
}

function ofStates(trace: NamedTrace | undefined): { report: Report; name: string } {
  if (!trace) throw new SegueError("USAGE", "Name a job, or a file of statistics with --states.");
  return { report: statesReport(trace), name: trace.name };
}

async function ofJob(
  jobId: string,
  asked: number | undefined,
  given: NamedTrace | undefined,
  runtime: CliRuntime,
): Promise<{ report: Report; name: string }> {
  const { REDIS_URL } = readSettings(reportSettings, { REDIS_URL: runtime.env["REDIS_URL"] });
  if (REDIS_URL === undefined) {
    throw new SegueError("REDIS_URL_MISSING", "Evaluations are read from Redis: set REDIS_URL to the coordinator's.");
  }
  const redis = connectReader(REDIS_URL);
  try {
    const findings = await readFindings(redis, jobId);
    const step = reportedStep(findings, asked);
    const traces = await readTraces(redis, findings.states, step);
    return { report: checkpointReport(findings, step, [...traces, ...(given ? [given] : [])]), name: `${jobId}-${step}` };
  } finally {
    redis.disconnect();
  }
}

async function readTraceFile(path: string, trainTokens: number | undefined): Promise<NamedTrace> {
  try {
    return traceOf(path, await readFile(path), trainTokens);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new SegueError("FILE_UNREADABLE", `Cannot read the statistics ${path}: ${reason}`, { cause });
  }
}
