import { writeFile } from "node:fs/promises";
import type { Command } from "commander";
import { DEFAULT_EVALUATION, rankCures, SegueError, type CureInput } from "@segue/core";
import type { QueuedEvaluation } from "@segue/protocol";
import type { connectRedis } from "@segue/runtime";
import { addConnectionOptions, connectReader, withConnection, type Connected, type ConnectionOptions } from "../connection.js";
import { addCure, addToGrid, gridCures, type CureGrid } from "../evaluation/cure-options.js";
import type { EvaluationKindView, EvaluationStatus } from "../evaluation/kind.js";
import { chosenKind, KINDS } from "../evaluation/kinds.js";
import { addLongPromptOptions } from "../evaluation/long-prompt-options.js";
import { lossByPositionKind } from "../evaluation/loss-by-position-kind.js";
import { waitUntilComplete } from "../evaluation/read-evaluation.js";
import type { LossResult } from "../evaluation/read-loss.js";
import { wholeNumber } from "../numbers.js";
import type { CliRuntime } from "../runtime.js";
import { lossRanking } from "../show/loss-comparison.js";

const MAX_STEP = 2 ** 32 - 1;

interface EvaluateOptions extends ConnectionOptions {
  readonly step: number;
  readonly watch?: boolean;
  readonly cure?: CureInput[];
  readonly cureGrid?: CureGrid;
  readonly out?: string;
}

export function addEvaluateCommand(program: Command, runtime: CliRuntime): void {
  const command = addConnectionOptions(program.command("eval <job>"))
    .description(
      "queue an evaluation of a checkpoint, of passkeys unless another kind is asked for; cells that were evaluated before are not run again",
    )
    .option("--step <step>", "step of the checkpoint (default: the newest)", wholeNumber(1, MAX_STEP), 0)
    .option("--name <name>", "name of the evaluation (default: derived from its settings)")
    .option("--seed <seed>", "seed of the prompts", wholeNumber(0, MAX_STEP), DEFAULT_EVALUATION.passkey.seed);
  for (const kind of Object.values(KINDS)) kind.addOptions(command);
  addLongPromptOptions(command)
    .option(
      "--cure <cure>",
      "change the model's recurrence against state collapse: none, reduced:0.9999,0.75, window:2K, normalised:1 or longmamba:0.5, with or without settings; repeat it to compare cures side by side",
      addCure,
    )
    .option(
      "--cure-grid <settings...>",
      "search the reduced retention and insertion with the least loss by position: retention=0.9999,0.99999 insertion=0.6,0.75,1",
      addToGrid,
    )
    .option("--out <file>", "states: write every statistic of every sample as safetensors; takes --watch, and one cure at most")
    .option(
      "--watch",
      "wait for the result and draw it; needs REDIS_URL, where the evaluator writes it (cluster up --json prints it)",
    )
    .addHelpText(
      "after",
      "\nExamples:\n  segue eval text-7f3a --lengths 1K,2K,4K --depths 0.1,0.5,0.9 --samples 50\n" +
        "  segue eval text-7f3a --step 4000 --no-carry --watch\n" +
        "  segue eval text-7f3a --loss-by-position --tokens 1M --prompt random --prompts 128 --watch\n" +
        "  segue eval text-7f3a --loss-by-position --cure none --cure reduced --cure window:8K --watch\n" +
        "  segue eval text-7f3a --tokens 32K --prompt passkey --cure-grid retention=0.9999,0.99999 insertion=0.6,0.75,1 --watch\n",
    )
    .action((jobId: string, options: EvaluateOptions) =>
      withConnection(runtime, options, (connected) => evaluate(connected, jobId, options)),
    );
}

async function evaluate(connected: Connected, jobId: string, options: EvaluateOptions): Promise<void> {
  const { connection, output } = connected;
  const { redisUrl } = connection;
  if (options.watch === true && redisUrl === undefined) {
    throw new SegueError(
      "REDIS_URL_MISSING",
      "Results are read from Redis: set REDIS_URL to the coordinator's, or leave out --watch.",
    );
  }
  const { cure, cureGrid, out } = options;
  const kind = cureGrid ? lossByPositionKind : chosenKind(options);
  if (out !== undefined && (!kind.file || options.watch !== true || (cure?.length ?? 0) > 1)) {
    throw new SegueError(
      "EVALUATION_OUT_INVALID",
      "--out writes the file of one evaluation of states: give --states, --watch, and one cure at most.",
    );
  }
  const cures = [...(cureGrid ? gridCures(cureGrid) : []), ...(cure ?? [])];
  const queued = await connection.jobs.submitEvaluation({
    jobId,
    step: options.step,
    evaluation: kind.evaluation(options, cures),
  });
  const { evaluationId, step, cells } = queued;
  // A coordinator that knows no cures lists none.
  const evaluations = queued.evaluations.length > 0 ? queued.evaluations : [{ evaluationId, cells }];
  if (options.watch !== true || redisUrl === undefined) {
    const ids = evaluations.map((one) => ({ evaluationId: one.evaluationId, cells: one.cells }));
    const lines = ids.map((one) => `queued ${one.evaluationId}: ${one.cells} cells`);
    output.result({ evaluationId, step, cells, ...(ids.length > 1 && { evaluations: ids }) }, () => lines.join("\n"));
    return;
  }
  const redis = connectReader(redisUrl);
  try {
    const results = await Promise.all(evaluations.map((one) => finished(connected, redis, kind, one)));
    const [first] = results;
    if (cureGrid) {
      const curves = results as LossResult[];
      const ranking = rankCures(curves).map(({ curve, ...ranked }) => ({ ...ranked, collapse: curve.collapse }));
      output.result({ ranking, evaluations: curves }, () => lossRanking(curves));
    } else if (results.length > 1) {
      output.result({ evaluations: results.map((result) => kind.json(result)) }, () => kind.comparison(results));
    } else if (first) {
      if (out !== undefined) await writeFile(out, await fileOf(redis, kind, first));
      output.result(kind.json(first), () => kind.text(first, output.colour));
    }
  } finally {
    redis.disconnect();
  }
}

async function fileOf(
  redis: ReturnType<typeof connectRedis>,
  kind: EvaluationKindView,
  result: EvaluationStatus,
): Promise<Uint8Array> {
  const file = await kind.file?.(redis, result);
  if (file) return file;
  const message = `The file of ${result.evaluationId} is not in Redis any more; ask for the evaluation under another --name.`;
  throw new SegueError("EVALUATION_FILE_GONE", message, { status: "NOT_FOUND" });
}

async function finished(
  { output, signal }: Connected,
  redis: ReturnType<typeof connectRedis>,
  kind: EvaluationKindView,
  { evaluationId, cells }: Pick<QueuedEvaluation, "evaluationId" | "cells">,
): Promise<EvaluationStatus> {
  output.note(`${evaluationId}: ${cells} cells queued`);
  return waitUntilComplete(() => kind.read(redis, evaluationId), {
    signal,
    cells: (known) => kind.cellsDone(known),
    isComplete: (known) => kind.isComplete(known),
    onChange: (known) => output.note(`${evaluationId}: ${kind.cellsDone(known)} of ${cells} cells`),
  });
}
