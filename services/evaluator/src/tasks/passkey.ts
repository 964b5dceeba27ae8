import { passkeyPrompt, wilsonInterval, type Interval } from "@segue/core";
import { z } from "zod";
import { answerGroup, equalLengthGroups, type Answer } from "../passkey-answers.js";
import { MAX_LANES, mostLanes } from "../state-memory.js";
import {
  cellIds,
  closingIds,
  REFERENCE_SEED,
  type CellResult,
  type Closing,
  type Outcome,
  type ReferenceText,
  type Subject,
  type Task,
} from "./task.js";

const KEPT_ANSWERS = 4;
/** More than the question takes, and what is left of a context that is no whole number of filler sentences. */
const PROMPT_END_TOKENS = 512;

/** Absent from coordinators of before there was anything else. */
const task = z.literal("passkey").default("passkey");

/** One cell of a heat map. */
const cellSchema = z.object({
  task,
  ...cellIds,
  length: z.number().int().min(1),
  depth: z.number().min(0).max(1),
  samples: z.number().int().min(1).max(10_000),
  digits: z.number().int().min(1).max(15),
  seed: z.number().int().min(0),
  template: z.enum(["paper", "code"]),
  carryState: z.boolean(),
  /** Absent from coordinators that know no early stop. */
  stopWidth: z.number().min(0).max(1).default(0),
});

export type PasskeyCell = z.output<typeof cellSchema>;

export interface PasskeyCellResult extends CellResult {
  readonly length: number;
  readonly depth: number;
  readonly correct: number;
  /** Prompts answered: fewer than the cell's when it stopped early. */
  readonly samples: number;
  /** 95 % interval of the accuracy. */
  readonly interval: Interval;
  /** What was expected and what was decoded, of the first prompts. */
  readonly answers: readonly Answer[];
}

export const passkeyTask: Task<PasskeyCell, PasskeyCellResult> = {
  cellSchema,
  closingSchema: z.object({ task, ...closingIds }),
  text: ({ length, depth, carryState }) => `length ${length}, depth ${depth}${carryState ? "" : ", state not carried"}`,
  size: ({ samples }) => samples,
  work: workOf,
  reference: referenceOf,
  evaluate: evaluatePasskeyCell,
  field: ({ length, depth, ...found }) => ({ name: `${length}:${depth}`, found }),
  close: closeHeatMap,
};

function workOf({ length, depth, seed, template, samples, digits, carryState, stopWidth }: PasskeyCell): string {
  const prompts = `passkey_len-${length}_depth-${depth}_seed-${seed}_${template}_${samples}x${digits}`;
  return `${prompts}_${carryState ? "carry" : "reset"}${stopWidth > 0 ? `_stop-${stopWidth}` : ""}`;
}

function referenceOf({ template, digits }: PasskeyCell): ReferenceText {
  const settings = { template, digits, depth: 0.5, seed: REFERENCE_SEED, sample: 0 };
  return {
    name: `passkey ${template} ${digits}`,
    prompt: ({ tokenizer }, tokens) => passkeyPrompt({ ...settings, tokenizer, contextTokens: tokens + PROMPT_END_TOKENS }),
  };
}

/**
 * Accuracy of greedy retrieval at one length and depth (paper.md section 4): every prompt is prefilled with the state carried, then as many
 * tokens as the answer needs are decoded; right when the key occurs in them. What comes before the needle is run once for all prompts. Ends
 * early when the accuracy's interval is narrower than `stopWidth`. Counts and answers are a function of the model and the cell alone.
 */
export function evaluatePasskeyCell(subject: Subject, cell: PasskeyCell, onPrompt?: (done: number) => void): PasskeyCellResult {
  const startedAt = performance.now();
  const ranBefore = subject.prefixes.tokensRun;
  const prompts = Array.from({ length: cell.samples }, (_, sample) =>
    passkeyPrompt({ ...cell, tokenizer: subject.tokenizer, contextTokens: cell.length, sample }),
  );
  const answers: Answer[] = [];
  let correct = 0;
  let tokens = 0;
  const lanes = mostLanes(subject.engine.model, cell.cure);
  // Where it may stop is the same whatever memory there is.
  const batchSize = cell.stopWidth > 0 ? MAX_LANES : prompts.length;
  for (let start = 0; start < prompts.length && !isSettled(correct, start, cell.stopWidth); start += batchSize) {
    for (const group of equalLengthGroups(prompts.slice(start, start + batchSize), lanes)) {
      const found = answerGroup(subject, group, cell.carryState);
      tokens += found.tokens;
      answers.push(...found.answers);
      onPrompt?.(answers.length);
    }
    correct = answers.filter(({ expected, decoded }) => decoded.includes(expected)).length;
  }
  return {
    length: cell.length,
    depth: cell.depth,
    correct,
    samples: answers.length,
    interval: wilsonInterval(correct, answers.length),
    ms: Math.round(performance.now() - startedAt),
    tokens: tokens + subject.prefixes.tokensRun - ranBefore,
    answers: answers.slice(0, KEPT_ANSWERS),
  };
}

function isSettled(correct: number, samples: number, stopWidth: number): boolean {
  if (samples === 0) return false;
  const { low, high } = wilsonInterval(correct, samples);
  return high - low < stopWidth;
}

/** The mean accuracy of all cells. */
function closeHeatMap(_: Closing, results: readonly PasskeyCellResult[]): Outcome {
  const shares = results.map(({ correct, samples }) => correct / samples);
  const accuracy = shares.reduce((sum, share) => sum + share, 0) / Math.max(1, shares.length);
  return { fields: { accuracy }, summary: { accuracy } };
}
