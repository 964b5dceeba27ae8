import { trainingLength, type JobSpec } from "@segue/core";
import type { EvaluationResult } from "../evaluation/read-evaluation.js";
import type { LossResult } from "../evaluation/read-loss.js";
import type { PlannedJob } from "./plan.js";

/** A job of a study and what is known of it; everything analyses read. */
export interface JobResult {
  readonly name: string;
  readonly grid: string;
  readonly values: Readonly<Record<string, unknown>>;
  readonly jobId: string;
  /** SUCCEEDED, or how it ended instead. */
  readonly phase: string;
  readonly reason: string;
  readonly step: number;
  readonly tokens: number;
  readonly loss: number;
  readonly parameters: number;
  /** Of one lane, three taps of the convolution included: the paper's N_S. */
  readonly stateFloats: number;
  /** Tokens after which training zeroes the state, or cuts the gradient where it never does. */
  readonly trainTokens: number;
  readonly seconds: number;
  readonly engine: string;
  readonly spec: JobSpec;
  readonly evaluations: readonly StudyEvaluation[];
  readonly failedEvaluations: readonly { readonly evaluationId: string; readonly reason: string }[];
}

/** One evaluation of one checkpoint with one cure. */
export type StudyEvaluation =
  | { readonly kind: "passkey"; readonly tokens: number; readonly result: EvaluationResult }
  | { readonly kind: "lossByPosition"; readonly tokens: number; readonly result: LossResult };

export type PasskeyOutcome = Extract<StudyEvaluation, { kind: "passkey" }>;
export type LossOutcome = Extract<StudyEvaluation, { kind: "lossByPosition" }>;

/** How long the memory of a job's training was: documents that are shorter than a chain end it. */
export function trainedLength({ spec }: Pick<PlannedJob, "spec">): number {
  const { data, tbptt } = spec;
  const chain = tbptt.segmentsPerChain === 0 ? Infinity : trainingLength(tbptt);
  const document = data.passkey && tbptt.resetAtDocumentEnd ? data.passkey.documentTokens : Infinity;
  const length = Math.min(chain, document);
  return Number.isFinite(length) ? length : trainingLength(tbptt);
}

/** Evaluations of loss by position at a job's last step without a cure, of the given names or all. */
export function lastCurves(job: JobResult, names?: readonly string[]): LossOutcome[] {
  return plainAtEnd(job, names).filter((one) => one.kind === "lossByPosition");
}

/** The same of passkeys. */
export function lastPasskeys(job: JobResult, names?: readonly string[]): PasskeyOutcome[] {
  return plainAtEnd(job, names).filter((one) => one.kind === "passkey");
}

function plainAtEnd({ evaluations, step }: JobResult, names: readonly string[] | undefined): StudyEvaluation[] {
  return evaluations.filter(
    ({ result }) => result.step === step && result.cure.kind === "none" && (names?.includes(result.name) ?? true),
  );
}

/** Accuracy by length, averaged over depths, shortest first. */
export function accuracyByLength({ cells }: EvaluationResult): { readonly length: number; readonly accuracy: number }[] {
  const lengths = [...new Set(cells.map(({ length }) => length))].sort((a, b) => a - b);
  return lengths.map((length) => {
    const here = cells.filter((cell) => cell.length === length);
    return { length, accuracy: here.reduce((sum, { correct, samples }) => sum + correct / samples, 0) / here.length };
  });
}
