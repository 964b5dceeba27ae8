import { createHash } from "node:crypto";
import { Option, type Command } from "commander";
import { DEFAULT_EVALUATION, DEFAULT_LOSS_BY_POSITION, recentAccuracy, SegueError } from "@segue/core";
import { connectRedis, createLogger } from "@segue/runtime";
import { addConnectionOptions, withConnection, type Connected, type ConnectionOptions } from "../connection.js";
import { waitForEvaluation, waitUntilComplete, type EvaluationResult } from "../evaluation/read-evaluation.js";
import { readLoss } from "../evaluation/read-loss.js";
import { factor, share, shares, tokenCounts, wholeNumber } from "../numbers.js";
import type { CliRuntime } from "../runtime.js";
import { lossText } from "../show/loss-text.js";
import { passkeyText } from "../show/passkey-text.js";

const MAX_STEP = 2 ** 32 - 1;
const MAX_TOKENS = 2 ** 30;

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
  readonly lossByPosition?: boolean;
  readonly tokens: number;
  readonly bucket?: number;
  readonly prompt: string;
  readonly prompts: number;
  readonly trainTokens?: number;
  readonly collapseFactor: number;
  readonly watch?: boolean;
}

export function addEvaluateCommand(program: Command, runtime: CliRuntime): void {
  const defaults = DEFAULT_EVALUATION.passkey;
  const loss = DEFAULT_LOSS_BY_POSITION;
  addConnectionOptions(program.command("eval <job>"))
    .description(
      "queue an evaluation of a checkpoint, of passkeys unless --loss-by-position is given; cells that were evaluated before are not run again",
    )
    .option("--step <step>", "step of the checkpoint (default: the newest)", wholeNumber(1, MAX_STEP), 0)
    .option("--name <name>", "name of the evaluation (default: derived from its settings)")
    .option("--lengths <tokens,...>", "context lengths, K is 1,024", tokenCounts, [...defaults.lengths])
    .option("--depths <shares,...>", "places of the key in the context", shares, [...defaults.depths])
    .option("--samples <count>", "prompts per cell", wholeNumber(1, 10_000), defaults.samples)
    .option("--digits <count>", "digits of the key", wholeNumber(1, 15), defaults.digits)
    .option("--seed <seed>", "seed of the prompts", wholeNumber(0, MAX_STEP), defaults.seed)
    .option("--template <name>", "wording of the prompt: paper or code", defaults.template)
    .option("--no-carry", "zero the recurrent state at every segment boundary, as a control")
    .option(
      "--stop-width <share>",
      "end a cell when the 95 % interval of its accuracy is narrower than this; 0: never",
      share,
      defaults.stopWidth,
    )
    .option(
      "--loss-by-position",
      "instead of passkeys: the loss at every position of long prompts, and the verdict on state collapse",
    )
    .option("--tokens <tokens>", "loss: positions of a prompt", wholeNumber(1, MAX_TOKENS), loss.tokens)
    .option("--bucket <tokens>", "loss: positions averaged over (default: 8K or the training length)", wholeNumber(1, MAX_TOKENS))
    .addOption(new Option("--prompt <kind>", "loss: what to read").choices(["newlines", "passkey", "random"]).default(loss.prompt))
    .option("--prompts <count>", "loss: prompts averaged over", wholeNumber(1, 4096), loss.prompts)
    .option("--train-tokens <tokens>", "loss: training length (default: the job's chain of segments)", wholeNumber(1, MAX_TOKENS))
    .option(
      "--collapse-factor <factor>",
      "loss: beyond so many times the largest within it, the state has collapsed",
      factor,
      loss.collapseFactor,
    )
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
  const evaluation = options.lossByPosition === true ? lossEvaluation(options) : passkeyEvaluation(options);
  const queued = await connection.jobs.submitEvaluation({ jobId, step: options.step, evaluation });
  const { evaluationId, cells } = queued;
  if (options.watch !== true || redisUrl === undefined) {
    output.result({ evaluationId, step: queued.step, cells }, () => `queued ${evaluationId}: ${cells} cells`);
    return;
  }
  output.note(`${evaluationId}: ${cells} cells queued`);
  const redis = connectRedis(redisUrl, { logger: createLogger("cli", "warn"), role: "reader" });
  try {
    if (options.lossByPosition === true) {
      const result = await waitUntilComplete(() => readLoss(redis, evaluationId), {
        signal,
        cells: ({ cellsDone }) => cellsDone,
        isComplete: ({ status }) => status === "done",
        onChange: ({ cellsDone }) => output.note(`${cellsDone} of ${cells} cells`),
      });
      output.result(result, () => lossText(result));
    } else {
      const onChange = (known: EvaluationResult): void => output.note(`${known.cells.length} of ${cells} cells`);
      const result = await waitForEvaluation(redis, evaluationId, { signal, onChange });
      output.result({ ...result, recent: recentAccuracy(result.cells) }, () => passkeyText(result, output.colour));
    }
  } finally {
    redis.disconnect();
  }
}

function passkeyEvaluation(options: EvaluateOptions) {
  const { lengths, depths, samples, digits, seed, template, carry: carryState, stopWidth } = options;
  const always = { lengths, depths, samples, digits, seed, template, carryState };
  // Names from before there was an early stop stay.
  const name = options.name ?? evaluationName("passkey", stopWidth > 0 ? { ...always, stopWidth } : always);
  return { name, everyCheckpoints: 1, passkey: { ...always, stopWidth } };
}

function lossEvaluation(options: EvaluateOptions) {
  const { tokens, bucket: bucketTokens, prompt, prompts, seed, trainTokens, collapseFactor } = options;
  const given = { bucketTokens, trainTokens };
  const settings = { tokens, prompt, prompts, seed, collapseFactor };
  const lossByPosition = { ...settings, ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) };
  const name = options.name ?? evaluationName("loss-by-position", lossByPosition);
  return { name, everyCheckpoints: 1, lossByPosition };
}

/** Equal settings have equal names: asking twice is asking once. */
function evaluationName(kind: string, settings: object): string {
  const digest = createHash("sha256").update(JSON.stringify(settings)).digest("hex");
  return `${kind}-${digest.slice(0, 8)}`;
}
