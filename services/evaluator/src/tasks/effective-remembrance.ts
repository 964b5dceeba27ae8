import { meanCurve } from "@segue/core";
import { effectiveRemembrance, remembranceTokens } from "@segue/engine";
import { z } from "zod";
import { SEGMENT_TOKENS } from "../prefix-states.js";
import { corpusTexts, inOrder, keptMean, longPrompt, longPromptSettings, longReference } from "./long-prompts.js";
import { cellIds, closingIds, type CellResult, type Closing, type Outcome, type Subject, type Task } from "./task.js";

const task = z.literal("effectiveRemembrance");

/** A few prompts of an evaluation. */
const cellSchema = z.object({
  task,
  ...cellIds,
  ...longPromptSettings,
  firstPrompt: z.number().int().min(0),
  prompts: z.number().int().min(1).max(256),
  starts: z.array(z.number().int().min(0)).min(1),
});

export type RemembranceCell = z.output<typeof cellSchema>;

export interface RemembranceCellResult extends CellResult {
  readonly firstPrompt: number;
  readonly prompts: number;
  /** Distance for each start, the mean over the cell's prompts, to seven digits; null where it is no finite number. */
  readonly distances: readonly (number | null)[];
}

export const effectiveRemembranceTask: Task<RemembranceCell, RemembranceCellResult> = {
  cellSchema,
  closingSchema: z.object({ task, ...closingIds }),
  text: ({ tokens, prompt, firstPrompt }) => `effective remembrance, ${tokens} tokens, ${prompt} ${firstPrompt}`,
  size: (cell) => cell.prompts * remembranceTokens(cell),
  work: ({ tokens, starts, prompt, seed, firstPrompt, prompts }) =>
    `remembrance_tokens-${tokens}_starts-${starts.join("-")}_${prompt}_seed-${seed}_prompts-${firstPrompt}-${prompts}`,
  reference: longReference,
  texts: (cell) => corpusTexts(cell, cell.firstPrompt, cell.prompts),
  evaluate: evaluateRemembranceCell,
  field: ({ firstPrompt, prompts, distances, ms, tokens }) => ({
    name: `prompts:${firstPrompt}:${prompts}`,
    found: { distances, ms, tokens },
  }),
  close: closeRemembrance,
};

/**
 * Effective remembrance for each start (paper.md section 8.5), averaged over the cell's prompts. A function of the model and the cell alone, but
 * for the time it takes.
 * @param onTokens told how many tokens have been read, of all prompts
 */
export function evaluateRemembranceCell(
  { engine, ...source }: Pick<Subject, "engine" | "tokenizer" | "corpus">,
  cell: RemembranceCell,
  onTokens?: (done: number) => void,
): RemembranceCellResult {
  const startedAt = performance.now();
  const { firstPrompt, prompts, tokens, starts } = cell;
  const texts = Array.from({ length: prompts }, (_, lane) => longPrompt(source, cell, firstPrompt + lane));
  const options = { tokens, starts, segmentTokens: SEGMENT_TOKENS };
  const read = (lane: number, from: number, count: number): Int32Array => texts[lane]!.read(from, count);
  const found = effectiveRemembrance(engine, prompts, read, options, onTokens);
  return {
    firstPrompt,
    prompts,
    distances: found.map((distances_B) => keptMean(distances_B.reduce((sum, distance) => sum + distance) / prompts)),
    ms: Math.round(performance.now() - startedAt),
    tokens: prompts * remembranceTokens(cell),
  };
}

/** The mean over all prompts. */
function closeRemembrance(_: Closing, results: readonly RemembranceCellResult[]): Outcome {
  const parts = inOrder(results).map(({ prompts, distances: losses }) => ({ prompts, losses }));
  const distances = meanCurve(parts).map(keptMean);
  return { fields: { distances: JSON.stringify(distances) }, summary: { distances } };
}
