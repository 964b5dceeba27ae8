import type { LedgerRound } from "@segue/core";

export interface RoundSizing {
  /** Committed step. */
  readonly step: number;
  readonly totalSteps: number;
  /** How long a round should last. */
  readonly targetMs: number;
  readonly maxSteps: number;
  /** Steps after which the members agree on weights; a round ends there, or with the training. @default 1 */
  readonly multipleOf?: number | undefined;
  /** Where steps change their size; a round of single steps ends there. @default Infinity */
  readonly stageEnd?: number | undefined;
  /** Steps between checkpoints; 0: none on the way. */
  readonly checkpointEverySteps: number;
  /** Measured; undefined before the first round. */
  readonly stepMs?: number | undefined;
  /** Of the round before; 0 before the first. */
  readonly previousSteps: number;
}

/** A round grows at most by this factor, since the first steps of a job are slower than the rest (compilation, warm caches). */
const MAX_GROWTH = 4;

/**
 * Steps of the next round: about `targetMs` of work, ending at checkpoint boundaries, stages of a curriculum and the end of training. Never changes results,
 * only how often they are committed.
 */
export function roundSteps(sizing: RoundSizing): number {
  const { step, totalSteps, targetMs, maxSteps, checkpointEverySteps, stepMs, previousSteps } = sizing;
  const { multipleOf = 1, stageEnd = Infinity } = sizing;
  const wanted = stepMs === undefined ? 1 : Math.max(1, Math.round(targetMs / Math.max(stepMs, 0.001)));
  const toCheckpoint = checkpointEverySteps > 0 ? checkpointEverySteps - (step % checkpointEverySteps) : Infinity;
  const bounded = Math.min(wanted, Math.max(1, previousSteps * MAX_GROWTH), maxSteps, stageEnd - step);
  const whole = Math.max(1, Math.floor(bounded / multipleOf)) * multipleOf;
  return Math.min(whole, toCheckpoint, totalSteps - step);
}

/**
 * Milliseconds that the slowest member of a round spent on its steps. The end of a round (snapshot, digest, commit) is left out: it takes
 * as long after few steps as after many, so counting it would shorten the rounds and make it weigh more still.
 */
export function roundWorkMs({ reports }: Pick<LedgerRound, "reports">): number {
  const workMs = reports.map(({ results }) => results.reduce((sum, { computeMs, exchangeMs }) => sum + computeMs + exchangeMs, 0));
  return Math.max(0, ...workMs);
}

/**
 * The time of a step as rounds are sized by it. Faster is believed at once, since nothing is fast by accident (and the first rounds of a job
 * are slow); slower only by half, so that one hiccup does not shrink the rounds.
 */
export function smoothedStepMs(previous: number | undefined, workMs: number, steps: number): number {
  const measured = workMs / steps;
  return previous === undefined ? measured : Math.min(measured, 0.5 * previous + 0.5 * measured);
}
