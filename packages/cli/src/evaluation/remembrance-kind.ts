import { parseRemembranceRecord, type RemembranceRecord } from "@segue/runtime";
import { tokenCounts } from "../numbers.js";
import { remembranceComparison } from "../show/remembrance-text.js";
import { evaluationName } from "./evaluation-name.js";
import type { EvaluationKindView } from "./kind.js";
import { given, type LongPromptOptions } from "./long-prompt-options.js";
import { readRecord } from "./read-record.js";

interface RemembranceOptions extends LongPromptOptions {
  readonly starts?: number[];
  readonly prompts?: number;
}

export interface RemembranceResult extends RemembranceRecord {
  readonly cellsDone: number;
}

export const remembranceKind: EvaluationKindView<RemembranceOptions, RemembranceResult> = {
  option: "remembrance",
  addOptions: (command) =>
    command
      .option("--remembrance", "instead of passkeys: how much the first tokens of a context matter to the prediction after it")
      .option(
        "--starts <tokens,...>",
        "remembrance: how many of the first tokens are left out (default: 15 equally far apart)",
        tokenCounts,
      ),
  evaluation: (options, cures) => {
    const { name, tokens, starts, prompt, prompts, seed } = options;
    const effectiveRemembrance = { ...given({ tokens, starts, prompt, prompts }), seed };
    return { name: name ?? evaluationName("remembrance", effectiveRemembrance), everyCheckpoints: 1, cures, effectiveRemembrance };
  },
  read: (redis, evaluationId) => readRecord(redis, evaluationId, parseRemembranceRecord),
  cellsDone: ({ cellsDone }) => cellsDone,
  isComplete: ({ status }) => status === "done",
  json: (result) => result,
  text: (result) => remembranceComparison([result]),
  comparison: remembranceComparison,
};
