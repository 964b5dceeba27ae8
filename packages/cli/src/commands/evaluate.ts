import { createHash } from "node:crypto";
import type { Command } from "commander";
import { DEFAULT_EVALUATION, recentAccuracy, SegueError, type PasskeyEvaluationSpec } from "@segue/core";
import { connectRedis, createLogger } from "@segue/runtime";
import { addConnectionOptions, withConnection, type Connected, type ConnectionOptions } from "../connection.js";
import { waitForEvaluation, type EvaluationResult } from "../evaluation/read-evaluation.js";
import { share, shares, tokenCounts, wholeNumber } from "../numbers.js";
import type { CliRuntime } from "../runtime.js";
import { passkeyText } from "../show/passkey-text.js";

const MAX_STEP = 2 ** 32 - 1;

interface EvaluateOptions extends ConnectionOptions {
  readonly step: number;
  readonly name?: string;
  readonly lengths: number[];
  readonly depths: number[];
  readonly samples: number;
  readonly digits: number;
  readonly seed: number;
  readonly template: string;
  readonly carry: boolean;
  readonly stopWidth: number;
  readonly watch?: boolean;
}

export function addEvaluateCommand(program: Command, runtime: CliRuntime): void {
  const defaults = DEFAULT_EVALUATION.passkey;
  addConnectionOptions(program.command("eval <job>"))
    .description("queue a passkey evaluation of a checkpoint; cells that were evaluated before are not run again")
    .option("--step <step>", "step of the checkpoint (default: the newest)", wholeNumber(1, MAX_STEP), 0)
    .option("--name <name>", "name of the evaluation (default: derived from its settings)")
    .option("--lengths <tokens,...>", "context lengths, K is 1,024", tokenCounts, [...defaults.lengths])
    .option("--depths <shares,...>", "places of the key in the context", shares, [...defaults.depths])
    .option("--samples <count>", "prompts per cell", wholeNumber(1, 10_000), defaults.samples)
    .option("--digits <count>", "digits of the key", wholeNumber(1, 15), defaults.digits)
    .option("--seed <seed>", "seed of the keys", wholeNumber(0, MAX_STEP), defaults.seed)
    .option("--template <name>", "wording of the prompt: paper or code", defaults.template)
    .option("--no-carry", "zero the recurrent state at every segment boundary, as a control")
    .option(
      "--stop-width <share>",
      "end a cell when the 95 % interval of its accuracy is narrower than this; 0: never",
      share,
      defaults.stopWidth,
    )
    .option(
      "--watch",
      "wait for the result and draw it; needs REDIS_URL, where the evaluator writes it (cluster up --json prints it)",
    )
    .addHelpText(
      "after",
      "\nExamples:\n  segue eval text-7f3a --lengths 1K,2K,4K --depths 0.1,0.5,0.9 --samples 50\n" +
        "  segue eval text-7f3a --step 4000 --no-carry --watch\n",
    )
    .action((jobId: string, options: EvaluateOptions) =>
      withConnection(runtime, options, (connected) => evaluate(connected, jobId, options)),
    );
}

async function evaluate(connected: Connected, jobId: string, options: EvaluateOptions): Promise<void> {
  const { connection, output } = connected;
  if (options.watch === true && connection.redisUrl === undefined) {
    throw new SegueError(
      "REDIS_URL_MISSING",
      "Results are read from Redis: set REDIS_URL to the coordinator's, or leave out --watch.",
    );
  }
  const { step, lengths, depths, samples, digits, seed, template, carry: carryState, stopWidth } = options;
  const passkey = { lengths, depths, samples, digits, seed, template, carryState, stopWidth };
  const name = options.name ?? evaluationName(passkey);
  const queued = await connection.jobs.submitEvaluation({ jobId, step, evaluation: { name, everyCheckpoints: 1, passkey } });
  const { evaluationId, cells } = queued;
  if (options.watch === true && connection.redisUrl !== undefined) {
    output.note(`${evaluationId}: ${cells} cells queued`);
    const result = await watchEvaluation(connected, connection.redisUrl, evaluationId);
    output.result({ ...result, recent: recentAccuracy(result.cells) }, () => passkeyText(result, output.colour));
  } else {
    output.result({ evaluationId, step: queued.step, cells }, () => `queued ${evaluationId}: ${cells} cells`);
  }
}

/** Equal settings have equal names: asking twice is asking once. */
function evaluationName(passkey: Omit<PasskeyEvaluationSpec, "template"> & { template: string }): string {
  const { stopWidth, ...always } = passkey;
  // Names from before there was an early stop stay.
  const settings = stopWidth > 0 ? passkey : always;
  const digest = createHash("sha256").update(JSON.stringify(settings)).digest("hex");
  return `passkey-${digest.slice(0, 8)}`;
}

async function watchEvaluation({ output, signal }: Connected, redisUrl: string, id: string): Promise<EvaluationResult> {
  const redis = connectRedis(redisUrl, { logger: createLogger("cli", "warn"), role: "reader" });
  try {
    return await waitForEvaluation(redis, id, {
      signal,
      onChange: ({ cells, lengths, depths }) => output.note(`${cells.length} of ${lengths.length * depths.length} cells`),
    });
  } finally {
    redis.disconnect();
  }
}
