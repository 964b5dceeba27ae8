import { Option } from "commander";
import { DEFAULT_LOSS_BY_POSITION } from "@segue/core";
import { factor, wholeNumber } from "../numbers.js";
import { lossComparison } from "../show/loss-comparison.js";
import { lossText } from "../show/loss-text.js";
import { evaluationName } from "./evaluation-name.js";
import type { EvaluationKindView } from "./kind.js";
import { readLoss, type LossResult } from "./read-loss.js";

interface LossOptions {
  readonly name?: string;
  readonly tokens: number;
  readonly bucket?: number;
  readonly prompt: string;
  readonly prompts: number;
  readonly seed: number;
  readonly trainTokens?: number;
  readonly collapseFactor: number;
}

const MAX_TOKENS = 2 ** 30;
const defaults = DEFAULT_LOSS_BY_POSITION;

export const lossByPositionKind: EvaluationKindView<LossOptions, LossResult> = {
  option: "lossByPosition",
  addOptions: (command) =>
    command
      .option(
        "--loss-by-position",
        "instead of passkeys: the loss at every position of long prompts, and the verdict on state collapse",
      )
      .option("--tokens <tokens>", "loss: positions of a prompt", wholeNumber(1, MAX_TOKENS), defaults.tokens)
      .option("--bucket <tokens>", "loss: positions averaged over (default: 8K or the training length)", wholeNumber(1, MAX_TOKENS))
      .addOption(
        new Option("--prompt <kind>", "loss: what to read").choices(["newlines", "passkey", "random"]).default(defaults.prompt),
      )
      .option("--prompts <count>", "loss: prompts averaged over", wholeNumber(1, 4096), defaults.prompts)
      .option("--train-tokens <tokens>", "loss: training length (default: the job's chain of segments)", wholeNumber(1, MAX_TOKENS))
      .option(
        "--collapse-factor <factor>",
        "loss: beyond so many times the largest within it, the state has collapsed",
        factor,
        defaults.collapseFactor,
      ),
  evaluation: (options, cures) => {
    const { tokens, bucket: bucketTokens, prompt, prompts, seed, trainTokens, collapseFactor } = options;
    const given = Object.entries({ bucketTokens, trainTokens }).filter(([, value]) => value !== undefined);
    const lossByPosition = { tokens, prompt, prompts, seed, collapseFactor, ...Object.fromEntries(given) };
    const name = options.name ?? evaluationName("loss-by-position", lossByPosition);
    return { name, everyCheckpoints: 1, cures, lossByPosition };
  },
  read: readLoss,
  cellsDone: ({ cellsDone }) => cellsDone,
  isComplete: ({ status }) => status === "done",
  json: (result) => result,
  text: (result) => lossText(result),
  comparison: lossComparison,
};
