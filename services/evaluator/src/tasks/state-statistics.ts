import { packStates, summariseStates, type StateSample, type StateSummary } from "@segue/core";
import { traceStates } from "@segue/engine";
import { z } from "zod";
import { corpusTexts, longPrompt, longPromptSettings, longReference } from "./long-prompts.js";
import { cellIds, closingIds, type CellResult, type Closing, type Outcome, type Subject, type Task } from "./task.js";

const task = z.literal("stateStatistics");

/** The whole evaluation. */
const cellSchema = z.object({
  task,
  ...cellIds,
  ...longPromptSettings,
  everyTokens: z.number().int().min(1),
  histogramTokens: z.array(z.number().int().min(1)),
  trainTokens: z.number().int().min(1),
});

export type StatesCell = z.output<typeof cellSchema>;

export interface StatesCellResult extends CellResult {
  readonly summary: StateSummary;
}

export const stateStatisticsTask: Task<StatesCell, StatesCellResult> = {
  cellSchema,
  closingSchema: z.object({ task, ...closingIds }),
  text: ({ tokens, prompt }) => `state statistics, ${tokens} tokens, ${prompt}`,
  size: ({ tokens }) => tokens,
  work: ({ tokens, everyTokens, histogramTokens, prompt, seed, trainTokens }) =>
    `states_tokens-${tokens}_every-${everyTokens}_at-${histogramTokens.join("-")}_${prompt}_seed-${seed}_train-${trainTokens}`,
  reference: longReference,
  texts: (cell) => corpusTexts(cell, 0, 1),
  evaluate: evaluateStatesCell,
  field: ({ summary, ms, tokens }) => ({ name: "trace", found: { summary, ms, tokens } }),
  close: closeStates,
};

/**
 * Statistics of every head's state along one prompt, packed, and what they come to. A function of the model and the cell alone, but for the
 * time it takes.
 * @param onTokens told how many tokens have been read, after each sample
 */
export function evaluateStatesCell(
  { engine, ...source }: Pick<Subject, "engine" | "tokenizer" | "corpus">,
  cell: StatesCell,
  onTokens?: (done: number) => void,
): StatesCellResult {
  const startedAt = performance.now();
  const { tokens, everyTokens, histogramTokens, prompt, seed, trainTokens, cure } = cell;
  const { read } = longPrompt(source, cell, 0);
  const logRetention = cure.kind === "reduced" ? Math.log(cure.retention) : 0;
  const samples: StateSample[] = [];
  for (const sample of traceStates(engine, read, { tokens, everyTokens, histogramTokens, logRetention })) {
    samples.push(sample);
    onTokens?.(sample.tokens);
  }
  return {
    summary: summariseStates(samples, trainTokens),
    file: packStates(engine.model, samples, { prompt, seed: String(seed), cure: JSON.stringify(cure) }),
    ms: Math.round(performance.now() - startedAt),
    tokens,
  };
}

function closeStates(_: Closing, [result]: readonly StatesCellResult[]): Outcome {
  const { summary, fileKey = "" } = result ?? {};
  return { fields: { summary: JSON.stringify(summary), fileKey }, summary: { samples: summary?.samples } };
}
