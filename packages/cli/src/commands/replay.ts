import { resolve } from "node:path";
import { Option, type Command } from "commander";
import { replayEvents, type EventReplay } from "@segue/core";
import { addJsonOption } from "../connection.js";
import { EXIT, ReportedFailure } from "../failure.js";
import { wholeNumber } from "../numbers.js";
import { planReplay, type ReplayRange } from "../replay/plan.js";
import { readStoredJob } from "../replay/read-store.js";
import { recompute, type Recomputed, type RecomputeOptions } from "../replay/recompute.js";
import { Output, type CliRuntime } from "../runtime.js";
import { formatCount } from "../show/format.js";

const MAX_STEP = 2 ** 32 - 1;
const DEFAULT_STORE = ".segue/store";

interface ReplayOptions {
  readonly from?: number;
  readonly to?: number;
  readonly store?: string;
  readonly eventsOnly?: boolean;
  readonly engine: RecomputeOptions["engine"];
  readonly threads: number;
  readonly json?: boolean;
}

interface ReplayResult {
  readonly jobId: string;
  readonly events: Omit<EventReplay, "commits"> & { readonly committedSteps: number };
  /** Absent with --events-only. */
  readonly weights?: WeightsResult;
  readonly equal: boolean;
}

interface WeightsResult {
  readonly start: number;
  readonly end: number;
  readonly engine: string;
  /** Round boundaries that were compared. */
  readonly compared: number;
  /** The first boundary with other weights; the steps after `lastEqual` are where it happened. */
  readonly difference?: { readonly step: number; readonly lastEqual: number; readonly recorded: string; readonly computed: string };
}

export function addReplayCommand(program: Command, runtime: CliRuntime): void {
  addJsonOption(program.command("replay <job>"))
    .description(
      "prove from a job's store that its recorded events add up, and that computing its steps again gives the same weights",
    )
    .option("--from <step>", "first step to compare (default: after the last checkpoint before --to)", wholeNumber(1, MAX_STEP))
    .option("--to <step>", "last step to compare (default: the last committed one)", wholeNumber(1, MAX_STEP))
    .option("--store <dir>", `the coordinator's store, which is only read (default: SEGUE_STORE or ${DEFAULT_STORE})`)
    .option("--events-only", "check the events and compute nothing")
    .addOption(new Option("--engine <name>", "engine to compute with").choices(["auto", "cuda", "cpu", "tfjs"]).default("auto"))
    .option("--threads <count>", "CPU threads; 0: as many as there are cores", wholeNumber(0, 1024), 0)
    .addHelpText(
      "after",
      "\nNeeds no running coordinator. Computing starts at the last checkpoint before --from, or at step 0, with one worker on this\n" +
        "machine; equal weights are to be expected on the type of device that the job ran on. Run it where the coordinator ran, if\n" +
        "the job's data.paths are relative. Exits with 0 when everything is equal, with 1 when anything differs.\n\n" +
        "Examples:\n  segue replay text-7f3a --store /srv/segue\n  segue replay text-7f3a --from 400 --to 450 --json\n",
    )
    .action((jobId: string, options: ReplayOptions) => replay(jobId, options, runtime));
}

async function replay(jobId: string, options: ReplayOptions, runtime: CliRuntime): Promise<void> {
  const output = new Output(runtime, options.json === true);
  const store = resolve(options.store ?? runtime.env["SEGUE_STORE"] ?? DEFAULT_STORE);
  const job = await readStoredJob(store, jobId);
  const { commits, ...events } = replayEvents(job.entries);
  let weights: WeightsResult | undefined;
  if (options.eventsOnly !== true) {
    const { from, to, engine, threads } = options;
    const range = planReplay({ commits, checkpoints: job.checkpoints, from, to });
    output.note(`computing steps ${range.start + 1} to ${range.end} again`);
    weights = compare(range, await recompute({ store, job, range, engine, threads, onStep: () => undefined }, runtime));
  }
  const equal = events.problems.length === 0 && weights?.difference === undefined;
  const result: ReplayResult = { jobId, events: { ...events, committedSteps: commits.length }, ...(weights && { weights }), equal };
  output.result(result, () => resultText(result));
  if (!equal) throw new ReportedFailure(EXIT.failed);
}

function compare({ start, end, commits }: ReplayRange, { digests, engine }: Recomputed): WeightsResult {
  const at = commits.findIndex(({ step, weightsDigest }) => digests.get(step) !== weightsDigest);
  const differing = commits[at];
  const base = { start, end, engine, compared: commits.length };
  if (!differing) return base;
  const { step, weightsDigest: recorded } = differing;
  return { ...base, difference: { step, lastEqual: commits[at - 1]?.step ?? start, recorded, computed: digests.get(step) ?? "" } };
}

function resultText({ events, weights }: ReplayResult): string {
  const lines = [
    `events    ${formatCount(events.events)} applied again, ${formatCount(events.committedSteps)} round boundaries`,
    ...events.missing.map(({ from, to }) => `missing   events ${from} to ${to} are not recorded`),
    ...events.problems.map(({ seq, description }) => `DIFFERS   event ${seq}: ${description}`),
  ];
  if (weights) {
    const { start, end, engine, compared, difference } = weights;
    lines.push(`weights   steps ${start + 1} to ${end} computed again by ${engine}, ${compared} boundaries compared`);
    if (difference) {
      const { step, lastEqual, recorded, computed } = difference;
      lines.push(`DIFFERS   step ${step}: recorded ${recorded}, now ${computed}; the last equal one is step ${lastEqual}`);
    } else lines.push("equal     every digest is the recorded one");
  }
  return lines.join("\n");
}
