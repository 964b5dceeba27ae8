import { evaluationText } from "../commands/evaluate.js";
import type { EvaluationResult } from "../evaluation/read-evaluation.js";
import { formatCount, formatDuration, formatShort } from "../show/format.js";
import type { JobView } from "../show/job-view.js";
import type { MeasuredSpeed } from "./measure-speed.js";
import type { DemoPlan } from "./plan.js";

export const DEVIATION =
  "Note: this model is trained on passkeys. That is a deviation from the paper, whose models never see the task in training; it shows\n" +
  "that the carried state works, not what a language model remembers.";

/** Everything the demo found, as `--json` prints it. */
export interface DemoResult {
  readonly jobId: string;
  readonly engine: string;
  readonly workers: number;
  readonly parameters: number;
  readonly steps: number;
  readonly recipeSteps: number;
  readonly tokens: number;
  readonly tokensPerSecond: number;
  readonly firstLoss: number;
  readonly lastLoss: number;
  /** Accuracies of the checkpoints, in order of step. */
  readonly evaluations: readonly EvaluationResult[];
  /** The last checkpoint with the state zeroed at every segment boundary. */
  readonly control: EvaluationResult | undefined;
  readonly seconds: number;
  readonly deviation: string;
}

export function planText({ tokensPerSecond, engine }: MeasuredSpeed, plan: DemoPlan, job: JobView): string {
  const budget = plan.isWhole
    ? "the whole recipe"
    : "fewer than the recipe needs to learn the task: this shows how far it gets in the time given";
  return (
    `${engine}: ${formatShort(tokensPerSecond)} tokens/s. ${job.jobId}: ${formatCount(job.parameters)} parameters, ` +
    `${formatCount(plan.steps)} steps, ${formatCount(job.totalTokens)} tokens (${budget}).`
  );
}

export function resultText(result: DemoResult, colour: boolean): string {
  const last = result.evaluations.at(-1);
  const parts = [
    `${formatCount(result.steps)} steps, ${formatCount(result.tokens)} tokens at ${formatShort(result.tokensPerSecond)} tokens/s ` +
      `on ${result.workers} workers (${result.engine}); loss ${result.firstLoss.toFixed(3)} -> ${result.lastLoss.toFixed(3)}`,
    ...(last ? [evaluationText(last, colour)] : []),
    ...(result.control ? [evaluationText(result.control, colour)] : []),
    "Columns: length of the context in bytes. Rows: where in it the key is told; the question comes at the end. Guessing scores 1 %.",
    DEVIATION,
    `done in ${formatDuration(result.seconds)}`,
  ];
  return `\n${parts.join("\n\n")}`;
}

/** One line about a checkpoint's evaluation, while training goes on. */
export function evaluationLine({ step, accuracy, cells }: EvaluationResult): string {
  const percent = accuracy === null ? "unknown" : `${(100 * accuracy).toFixed(1)} %`;
  return `evaluation of step ${formatCount(step)}: passkey accuracy ${percent} over ${cells.length} cells`;
}
