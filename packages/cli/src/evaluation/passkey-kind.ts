import { DEFAULT_EVALUATION, recentAccuracy } from "@segue/core";
import { share, shares, tokenCounts, wholeNumber } from "../numbers.js";
import { passkeyComparison } from "../show/passkey-comparison.js";
import { passkeyText } from "../show/passkey-text.js";
import { evaluationName } from "./evaluation-name.js";
import type { EvaluationKindView } from "./kind.js";
import { isComplete, readEvaluation, type EvaluationResult } from "./read-evaluation.js";

interface PasskeyOptions {
  readonly name?: string;
  readonly lengths: number[];
  readonly depths: number[];
  readonly samples: number;
  readonly digits: number;
  readonly seed: number;
  readonly template: string;
  readonly carry: boolean;
  readonly stopWidth: number;
}

const defaults = DEFAULT_EVALUATION.passkey;

export const passkeyKind: EvaluationKindView<PasskeyOptions, EvaluationResult> = {
  option: "passkey",
  addOptions: (command) =>
    command
      .option("--lengths <tokens,...>", "context lengths, K is 1,024", tokenCounts, [...defaults.lengths])
      .option("--depths <shares,...>", "places of the key in the context", shares, [...defaults.depths])
      .option("--samples <count>", "prompts per cell", wholeNumber(1, 10_000), defaults.samples)
      .option("--digits <count>", "digits of the key", wholeNumber(1, 15), defaults.digits)
      .option("--template <name>", "wording of the prompt: paper or code", defaults.template)
      .option("--no-carry", "zero the recurrent state at every segment boundary, as a control")
      .option(
        "--stop-width <share>",
        "end a cell when the 95 % interval of its accuracy is narrower than this; 0: never",
        share,
        defaults.stopWidth,
      ),
  evaluation: (options, cures) => {
    const { lengths, depths, samples, digits, seed, template, carry: carryState, stopWidth } = options;
    const always = { lengths, depths, samples, digits, seed, template, carryState };
    // Names from before there was an early stop stay.
    const name = options.name ?? evaluationName("passkey", stopWidth > 0 ? { ...always, stopWidth } : always);
    return { name, everyCheckpoints: 1, cures, passkey: { ...always, stopWidth } };
  },
  read: readEvaluation,
  cellsDone: ({ cells }) => cells.length,
  isComplete,
  json: (result) => ({ ...result, recent: recentAccuracy(result.cells) }),
  text: passkeyText,
  comparison: passkeyComparison,
};
