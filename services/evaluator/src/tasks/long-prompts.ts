import { positionPrompt, type CorpusText, type PositionPrompt, type PromptKind } from "@segue/core";
import { z } from "zod";
import { REFERENCE_SEED, type Cell, type ReferenceText, type TextSource } from "./task.js";

/** Settings of the cells that read long prompts. */
export const longPromptSettings = {
  tokens: z.number().int().min(1),
  prompt: z.enum(["newlines", "passkey", "random", "corpus"]),
  seed: z.number().int().min(0),
};

interface LongPrompt {
  readonly prompt: PromptKind;
  readonly seed: number;
  readonly tokens: number;
}

/**
 * Prompt number `index`, from which `tokens` tokens can be read.
 * @throws RangeError when it is of the corpus and was not read for the cell
 */
export function longPrompt({ tokenizer, corpus = [] }: TextSource, settings: LongPrompt, index: number): PositionPrompt {
  const { prompt, seed, tokens } = settings;
  if (prompt !== "corpus") return positionPrompt(tokenizer, { prompt, seed, tokens }, index);
  const text = corpus.find((one) => one.seed === seed && one.index === index && one.tokens >= tokens);
  if (!text) throw new RangeError(`prompt ${index} of the corpus was not read`);
  return { read: (from, count) => text.tokens_T.slice(from, from + count) };
}

/** What has to be read of the corpus for prompts of a cell, and for what sets its cure. */
export function corpusTexts(cell: Cell & LongPrompt, firstPrompt: number, prompts: number, tokens = cell.tokens): CorpusText[] {
  const { prompt, seed, cure } = cell;
  if (prompt !== "corpus") return [];
  const own = Array.from({ length: prompts }, (_, lane) => ({ seed, index: firstPrompt + lane, tokens }));
  return cure.kind === "normalised" ? [...own, { seed: REFERENCE_SEED, index: 0, tokens: cure.referenceTokens }] : own;
}

export function longReference({ prompt }: Pick<LongPrompt, "prompt">): ReferenceText {
  return { name: prompt, prompt: (source, tokens) => longPrompt(source, { prompt, seed: REFERENCE_SEED, tokens }, 0) };
}

/** The parts of an evaluation in order of their prompts: sums of floats depend on it. */
export function inOrder<R extends { readonly firstPrompt: number }>(results: readonly R[]): R[] {
  return [...results].sort((a, b) => a.firstPrompt - b.firstPrompt);
}

/** A mean as it is kept: to seven digits; null where it is no finite number. */
export function keptMean(mean: number | null): number | null {
  return mean !== null && Number.isFinite(mean) ? Number(mean.toPrecision(7)) : null;
}
