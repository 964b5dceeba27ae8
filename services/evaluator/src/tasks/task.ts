import {
  cureSchema,
  NO_CURE,
  type CorpusText,
  type CureSpec,
  type EvaluationKind,
  type PositionPrompt,
  type Tokenizer,
} from "@segue/core";
import type { InferenceEngine } from "@segue/engine";
import { z } from "zod";
import type { Corpus } from "../corpus.js";
import type { PrefixStates } from "../prefix-states.js";

/** One piece of work on the queue. Plain data: it goes to the model's process as it is. */
export interface Cell {
  readonly task: TaskName;
  readonly jobId: string;
  readonly step: number;
  /** Of the checkpoint. */
  readonly digest: string;
  readonly evaluationId: string;
  readonly cure: CureSpec;
}

/** What a cell gave, beside what its task found. */
export interface CellResult {
  readonly ms: number;
  /** That the model was run on, of all lanes. */
  readonly tokens: number;
  /** What is too large for the other results: kept in Redis by itself, and then named by its key. */
  readonly file?: Uint8Array | undefined;
  readonly fileKey?: string | undefined;
}

/** What the coordinator puts into the queue to close an evaluation whose cells are complete. */
export interface Closing {
  readonly task: TaskName;
  readonly jobId: string;
  readonly evaluationId: string;
}

/** What the cells of an evaluation come to. */
export interface Outcome {
  /** Fields of the evaluation's hash. */
  readonly fields: Readonly<Record<string, string | number>>;
  /** For the log and the queue. */
  readonly summary: object;
}

/** What prompts are made of. */
export interface TextSource {
  readonly tokenizer: Tokenizer;
  /** What the cell's task asked for of the job's documents; absent: nothing. */
  readonly corpus?: Corpus | undefined;
}

/** The model under evaluation, with a cell's cure. */
export interface Subject extends TextSource {
  readonly engine: InferenceEngine;
  /** Of the job's training, and so of the control that zeroes the state at its boundaries. */
  readonly segmentTokens: number;
  /** Of the engine's model. */
  readonly prefixes: PrefixStates;
}

/** By which a cure may be set: a text like those of the cells, but none of them. */
export interface ReferenceText {
  /** The same for the same text. */
  readonly name: string;
  prompt(source: TextSource, tokens: number): PositionPrompt;
}

export type TaskName = EvaluationKind;

/** A kind of evaluation; ./tasks.ts lists them, docs/reference/redis.md says what each puts into Redis. */
export interface Task<C extends Cell = Cell, R extends CellResult = CellResult, P extends Closing = Closing> {
  /** What the queue holds for a cell, and for closing the evaluation. */
  readonly cellSchema: z.ZodType<C>;
  readonly closingSchema: z.ZodType<P>;
  /** A cell in words, for people. */
  text(cell: C): string;
  /** The cell's work in units of its progress. */
  size(cell: C): number;
  /** What makes two cells of a checkpoint and a cure the same work, with the same result. */
  work(cell: C): string;
  reference(cell: C): ReferenceText;
  /** What has to be read of the job's documents; absent: never anything. */
  texts?(cell: C): CorpusText[];
  /** A function of the model and the cell alone, but for the costs. `onProgress` is told how much of the cell's size is done. */
  evaluate(subject: Subject, cell: C, onProgress?: (done: number) => void): R;
  /** A result's name within its evaluation, and what is kept under it. */
  field(result: R): { readonly name: string; readonly found: object };
  /** Pure. */
  close(closing: P, results: readonly R[]): Outcome;
}

/** Settings that the cells of every task have. */
export const cellIds = {
  jobId: z.string().min(1),
  step: z.number().int().min(0),
  digest: z.string().regex(/^[0-9a-f]{64}$/),
  evaluationId: z.string().min(1),
  cure: cureSchema.default(NO_CURE),
};

/** Settings that the closings of every task have. */
export const closingIds = { jobId: z.string().min(1), evaluationId: z.string().min(1) };

/** Of reference texts: far from the seeds that people choose. */
export const REFERENCE_SEED = 2 ** 32 - 1;
