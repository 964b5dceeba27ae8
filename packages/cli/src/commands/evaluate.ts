import type { Command } from "commander";
import { DEFAULT_EVALUATION, SegueError } from "@segue/core";
import { connectRedis, createLogger } from "@segue/runtime";
import { addConnectionOptions, withConnection, type Connected, type ConnectionOptions } from "../connection.js";
import { chosenKind, KINDS } from "../evaluation/kinds.js";
import { waitUntilComplete } from "../evaluation/read-evaluation.js";
import { wholeNumber } from "../numbers.js";
import type { CliRuntime } from "../runtime.js";

const MAX_STEP = 2 ** 32 - 1;

interface EvaluateOptions extends ConnectionOptions {
  readonly step: number;
  readonly watch?: boolean;
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
  command
    .option(
      "--watch",
      "wait for the result and draw it; needs REDIS_URL, where the evaluator writes it (cluster up --json prints it)",
    )
    .addHelpText(
      "after",
      "\nExamples:\n  segue eval text-7f3a --lengths 1K,2K,4K --depths 0.1,0.5,0.9 --samples 50\n" +
        "  segue eval text-7f3a --step 4000 --no-carry --watch\n" +
        "  segue eval text-7f3a --loss-by-position --tokens 1M --prompt random --prompts 128 --watch\n",
    )
    .action((jobId: string, options: EvaluateOptions) =>
      withConnection(runtime, options, (connected) => evaluate(connected, jobId, options)),
    );
}

async function evaluate(connected: Connected, jobId: string, options: EvaluateOptions): Promise<void> {
  const { connection, output, signal } = connected;
  const { redisUrl } = connection;
  if (options.watch === true && redisUrl === undefined) {
    throw new SegueError(
      "REDIS_URL_MISSING",
      "Results are read from Redis: set REDIS_URL to the coordinator's, or leave out --watch.",
    );
  }
  const kind = chosenKind(options);
  const queued = await connection.jobs.submitEvaluation({ jobId, step: options.step, evaluation: kind.evaluation(options) });
  const { evaluationId, cells } = queued;
  if (options.watch !== true || redisUrl === undefined) {
    output.result({ evaluationId, step: queued.step, cells }, () => `queued ${evaluationId}: ${cells} cells`);
    return;
  }
  output.note(`${evaluationId}: ${cells} cells queued`);
  const redis = connectRedis(redisUrl, { logger: createLogger("cli", "warn"), role: "reader" });
  try {
    const result = await waitUntilComplete(() => kind.read(redis, evaluationId), {
      signal,
      cells: (known) => kind.cellsDone(known),
      isComplete: (known) => kind.isComplete(known),
      onChange: (known) => output.note(`${kind.cellsDone(known)} of ${cells} cells`),
    });
    output.result(kind.json(result), () => kind.text(result, output.colour));
  } finally {
    redis.disconnect();
  }
}
