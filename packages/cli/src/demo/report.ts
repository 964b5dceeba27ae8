import type { EvaluationResult } from "../evaluation/read-evaluation.js";
import { formatCount, formatDuration, formatShort } from "../show/format.js";
import type { JobView } from "../show/job-view.js";
import { passkeyText } from "../show/passkey-text.js";
import { renderTable } from "../show/table.js";
import { farAccuracy } from "./accuracy.js";
import type { MeasuredSpeed } from "./measure-speed.js";
import type { DemoPlan } from "./plan.js";

export const DEVIATION =
  "Note: these models are trained on passkeys. That is a deviation from the paper, whose models never see the task in training; it shows\n" +
  "that the carried state works, not what a language model remembers.";

/** One of the demo's two jobs. */
export interface DemoJob {
  readonly jobId: string;
  readonly workers: number;
  readonly steps: number;
  readonly tokens: number;
  readonly tokensPerSecond: number;
  readonly firstLoss: number;
  readonly lastLoss: number;
  /** As the job was trained, of each checkpoint in order of step. */
  readonly evaluations: readonly EvaluationResult[];
  /** The last checkpoint, asked the other way: with the state zeroed at segment boundaries, or carried after all. */
  readonly otherwise: EvaluationResult | undefined;
}

/** Everything the demo found, as `--json` prints it. */
export interface DemoResult {
  readonly engine: string;
  readonly parameters: number;
  readonly recipeSteps: number;
  readonly segmentTokens: number;
  /** The recipe. */
  readonly carried: DemoJob;
  /** The same with the carried state switched off. */
  readonly control: DemoJob;
  readonly seconds: number;
  readonly deviation: string;
}

export function planText({ tokensPerSecond, engine }: MeasuredSpeed, plan: DemoPlan, job: JobView): string {
  const budget = plan.isWhole
    ? "the whole recipe"
    : "fewer than the recipe needs to learn the task: this shows how far it gets in the time given";
  return (
    `${engine}: ${formatShort(tokensPerSecond)} tokens/s. ${job.jobId}: ${formatCount(job.parameters)} parameters, ` +
    `${formatCount(plan.steps)} steps, ${formatCount(job.totalTokens)} tokens (${budget}); then as many with the carried state ` +
    "switched off, as a control."
  );
}

export function resultText(result: DemoResult, colour: boolean): string {
  const { carried, control, segmentTokens } = result;
  const parts = [
    jobText("carried", carried, result.engine),
    ...lastMap(carried, colour),
    jobText("control, the same job with the carried state switched off", control, result.engine),
    ...lastMap(control, colour),
    "Columns: length of the context in bytes. Rows: where in it the key is told; the question comes at the end. Guessing scores 1 %.",
    `Keys told at least one segment (${segmentTokens} bytes) before the question, by length of the context:\n${farTable(result)}`,
    DEVIATION,
    `done in ${formatDuration(result.seconds)}`,
  ];
  return `\n${parts.join("\n\n")}`;
}

/** One line about a checkpoint's evaluation, while training goes on. */
export function evaluationLine(result: EvaluationResult, segmentTokens: number): string {
  const { jobId, step, accuracy, cells } = result;
  const far = farAccuracy(result, segmentTokens);
  return (
    `${jobId}: passkey accuracy of step ${formatCount(step)} ${percent(accuracy)} over ${cells.length} cells, ` +
    `${percent(far.mean)} where the key is a segment away`
  );
}

function jobText(title: string, job: DemoJob, engine: string): string {
  return (
    `${title}: ${formatCount(job.steps)} steps, ${formatCount(job.tokens)} tokens at ${formatShort(job.tokensPerSecond)} tokens/s ` +
    `on ${job.workers} worker${job.workers === 1 ? "" : "s"} (${engine}); loss ${job.firstLoss.toFixed(3)} -> ${job.lastLoss.toFixed(3)}`
  );
}

function lastMap({ evaluations }: DemoJob, colour: boolean): string[] {
  const last = evaluations.at(-1);
  return last ? [passkeyText(last, colour)] : [];
}

function farTable({ carried, control, segmentTokens }: DemoResult): string {
  const rows: [string, EvaluationResult | undefined][] = [
    ["trained and asked with the state carried", carried.evaluations.at(-1)],
    ["the same model, its state zeroed at every boundary", carried.otherwise],
    ["control: trained and asked without the state", control.evaluations.at(-1)],
    ["the control's model, given a carried state after all", control.otherwise],
  ];
  const known = rows.flatMap(([title, result]) => (result ? [{ title, far: farAccuracy(result, segmentTokens) }] : []));
  const lengths = known[0]?.far.byLength.map(({ length }) => length) ?? [];
  type Row = (typeof known)[number];
  return renderTable<Row>(
    [
      { title: "", value: ({ title }) => title },
      ...lengths.map((length) => ({
        title: formatCount(length),
        value: ({ far }: Row) => percent(far.byLength.find((part) => part.length === length)?.accuracy ?? null),
        right: true,
      })),
      { title: "all", value: ({ far }: Row) => percent(far.mean), right: true },
    ],
    known,
  );
}

function percent(share: number | null): string {
  return share === null ? "-" : `${(100 * share).toFixed(1)} %`;
}
