import { parseStatesRecord, type StatesRecord } from "@segue/runtime";
import { tokenCounts, wholeNumber } from "../numbers.js";
import { statesComparison, statesSummaryText } from "../show/states-text.js";
import { evaluationName } from "./evaluation-name.js";
import type { EvaluationKindView } from "./kind.js";
import { given, type LongPromptOptions } from "./long-prompt-options.js";
import { readRecord } from "./read-record.js";

interface StatesOptions extends LongPromptOptions {
  readonly every?: number;
  readonly histograms?: number[];
  readonly trainTokens?: number;
}

export interface StatesResult extends StatesRecord {
  readonly cellsDone: number;
}

export const statesKind: EvaluationKindView<StatesOptions, StatesResult> = {
  option: "states",
  addOptions: (command) =>
    command
      .option("--states", "instead of passkeys: statistics of every head's recurrent state along one long prompt")
      .option("--every <tokens>", "states: tokens between two samples (default: 128)", wholeNumber(1, 2 ** 20))
      .option(
        "--histograms <tokens,...>",
        "states: where every head has a histogram (default: a quarter, and the end)",
        tokenCounts,
      ),
  evaluation: (options, cures) => {
    const { name, tokens, every: everyTokens, histograms: histogramTokens, prompt, seed, trainTokens } = options;
    const stateStatistics = { ...given({ tokens, everyTokens, histogramTokens, prompt, trainTokens }), seed };
    return { name: name ?? evaluationName("states", stateStatistics), everyCheckpoints: 1, cures, stateStatistics };
  },
  read: (redis, evaluationId) => readRecord(redis, evaluationId, parseStatesRecord),
  cellsDone: ({ cellsDone }) => cellsDone,
  isComplete: ({ status }) => status === "done",
  async file(redis, { fileKey }) {
    return (await redis.getBuffer(fileKey)) ?? undefined;
  },
  json: (result) => result,
  text: statesSummaryText,
  comparison: statesComparison,
};
