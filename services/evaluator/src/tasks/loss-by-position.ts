import { judgeCollapse, meanCurve, SegueError } from "@segue/core";
import { z } from "zod";
import { corpusTexts, inOrder, keptMean, longPrompt, longPromptSettings, longReference } from "./long-prompts.js";
import { cellIds, closingIds, type CellResult, type Outcome, type Subject, type Task } from "./task.js";

const task = z.literal("lossByPosition");

/** A few prompts of an evaluation. */
const cellSchema = z.object({
  task,
  ...cellIds,
  firstPrompt: z.number().int().min(0),
  prompts: z.number().int().min(1).max(256),
  ...longPromptSettings,
  bucketTokens: z.number().int().min(1),
});

const closingSchema = z.object({
  task,
  ...closingIds,
  bucketTokens: z.number().int().min(1),
  trainTokens: z.number().int().min(1),
  collapseFactor: z.number().min(1),
});

export type LossCell = z.output<typeof cellSchema>;
type LossClosing = z.output<typeof closingSchema>;

export interface LossCellResult extends CellResult {
  readonly firstPrompt: number;
  readonly prompts: number;
  /** Mean cross-entropy of each bucket of positions, over the cell's prompts, to seven digits; null where it is no finite number. */
  readonly losses: readonly (number | null)[];
}

/** Positions of every prompt in one forward pass; memory does not grow with the prompts. */
const SEGMENT_TOKENS = 2048;

export const lossByPositionTask: Task<LossCell, LossCellResult, LossClosing> = {
  cellSchema,
  closingSchema,
  text: ({ tokens, prompt, firstPrompt }) => `loss by position, ${tokens} tokens, ${prompt} ${firstPrompt}`,
  size: ({ prompts, tokens }) => prompts * tokens,
  work: ({ tokens, bucketTokens, prompt, seed, firstPrompt, prompts }) =>
    `loss_tokens-${tokens}_bucket-${bucketTokens}_${prompt}_seed-${seed}_prompts-${firstPrompt}-${prompts}`,
  reference: longReference,
  // The last position is followed by a token to predict.
  texts: (cell) => corpusTexts(cell, cell.firstPrompt, cell.prompts, cell.tokens + 1),
  evaluate: evaluateLossCell,
  field: ({ firstPrompt, prompts, ...found }) => ({ name: `prompts:${firstPrompt}:${prompts}`, found }),
  close: closeLoss,
};

/**
 * Cross-entropy of the next token after each of `tokens` positions, averaged over the cell's prompts and over buckets of positions; the
 * state starts from zero and is carried from segment to segment (paper.md section 1.3, M1; no position is lost at the boundaries). A
 * function of the model and the cell alone, but for the time it takes.
 * @param onTokens told how many tokens are scored, after each segment
 */
export function evaluateLossCell(
  { engine, ...source }: Pick<Subject, "engine" | "tokenizer" | "corpus">,
  cell: LossCell,
  onTokens?: (done: number) => void,
): LossCellResult {
  const startedAt = performance.now();
  const { prompts: lanes, firstPrompt, tokens, bucketTokens } = cell;
  const prompts = Array.from({ length: lanes }, (_, lane) => longPrompt(source, cell, firstPrompt + lane));
  const sums = new Float64Array(Math.ceil(tokens / bucketTokens));
  const states = engine.createStates(lanes);
  try {
    for (let start = 0; start < tokens; start += SEGMENT_TOKENS) {
      const length = Math.min(SEGMENT_TOKENS, tokens - start);
      const tokens_BT = new Int32Array(lanes * length);
      const labels_BT = new Int32Array(lanes * length);
      prompts.forEach(({ read }, lane) => {
        const piece = read(start, length + 1);
        tokens_BT.set(piece.subarray(0, length), lane * length);
        labels_BT.set(piece.subarray(1), lane * length);
      });
      const losses_BT = engine.score({ lanes, tokens: length, tokens_BT, labels_BT }, states);
      losses_BT.forEach((loss, index) => {
        sums[Math.floor((start + (index % length)) / bucketTokens)]! += loss;
      });
      onTokens?.(lanes * (start + length));
    }
  } finally {
    engine.freeStates(states);
  }
  const losses = Array.from(sums, (sum, bucket) => sum / (lanes * Math.min(bucketTokens, tokens - bucket * bucketTokens)));
  return {
    firstPrompt,
    prompts: lanes,
    losses: losses.map(keptMean),
    ms: Math.round(performance.now() - startedAt),
    tokens: lanes * tokens,
  };
}

/**
 * The mean loss curve, and whether it shows collapse.
 * @throws SegueError LOSS_NOT_FINITE when there is no loss within the training length to compare with
 */
function closeLoss({ bucketTokens, trainTokens, collapseFactor }: LossClosing, results: readonly LossCellResult[]): Outcome {
  const losses = meanCurve(inOrder(results)).map(keptMean);
  try {
    const collapse = judgeCollapse({ bucketTokens, losses }, trainTokens, collapseFactor);
    return { fields: { losses: JSON.stringify(losses), collapse: JSON.stringify(collapse) }, summary: collapse };
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new SegueError("LOSS_NOT_FINITE", `The collapse rule cannot be applied: ${cause.message}.`, { cause });
  }
}
