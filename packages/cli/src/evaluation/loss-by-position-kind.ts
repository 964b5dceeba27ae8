import { DEFAULT_LOSS_BY_POSITION } from "@segue/core";
import { factor, wholeNumber } from "../numbers.js";
import { lossComparison } from "../show/loss-comparison.js";
import { lossText } from "../show/loss-text.js";
import { evaluationName } from "./evaluation-name.js";
import type { EvaluationKindView } from "./kind.js";
import { given, type LongPromptOptions } from "./long-prompt-options.js";
import { readLoss, type LossResult } from "./read-loss.js";

interface LossOptions extends LongPromptOptions {
  readonly bucket?: number;
  readonly prompts?: number;
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
      .option("--bucket <tokens>", "loss: positions averaged over (default: 8K or the training length)", wholeNumber(1, MAX_TOKENS))
      .option(
        "--collapse-factor <factor>",
        "loss: beyond so many times the largest within it, the state has collapsed",
        factor,
        defaults.collapseFactor,
      ),
  evaluation: (options, cures) => {
    const { bucket: bucketTokens, seed, trainTokens, collapseFactor } = options;
    const { tokens = defaults.tokens, prompt = defaults.prompt, prompts = defaults.prompts } = options;
    const lossByPosition = { tokens, prompt, prompts, seed, collapseFactor, ...given({ bucketTokens, trainTokens }) };
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
