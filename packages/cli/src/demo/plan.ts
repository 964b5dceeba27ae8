import { tokensPerStep, type EvaluationSpec, type JobSpec, type PasskeyEvaluationSpec } from "@segue/core";

/** What the time allows. */
export interface DemoPlan {
  /** Of each of the two jobs. */
  readonly steps: number;
  /** Whether these are the steps the recipe is known to learn in. */
  readonly isWhole: boolean;
  readonly checkpointEvery: number;
  /** Prompts per cell of a heat map. */
  readonly samples: number;
}

/** The recipe as it is, and the same without the carried state. */
const JOBS = 2;
/** Of the time left after measuring. The speed measured is that of the first small rounds, which leaves time for evaluations. */
const TRAINING_SHARE = 0.95;
const CHECKPOINTS = 4;
/** A forward pass is cheaper than a training step, an evaluator has fewer cores: about the same speed. */
const MAX_EVALUATION_SHARE = 0.03;
const MIN_STEPS = 10;

/** Fits the recipe and its control into the time left at the speed measured. Pure. */
export function planDemo(recipe: JobSpec, tokensPerSecond: number, secondsLeft: number): DemoPlan {
  const affordable = Math.floor((tokensPerSecond * secondsLeft * TRAINING_SHARE) / (JOBS * tokensPerStep(recipe)));
  const steps = Math.max(MIN_STEPS, Math.min(recipe.train.steps, affordable));
  const recipeSamples = recipe.evaluations[0]?.passkey?.samples ?? 1;
  const promptTokens = evaluationTokens(recipe) / recipeSamples;
  const samples = Math.floor((tokensPerSecond * secondsLeft * MAX_EVALUATION_SHARE) / promptTokens);
  return {
    steps,
    isWhole: steps === recipe.train.steps,
    checkpointEvery: Math.ceil(steps / CHECKPOINTS),
    samples: Math.max(1, Math.min(recipeSamples, samples)),
  };
}

/** The recipe with the plan's numbers: warm-up at most a tenth, decay over the last 30 %. Pure. */
export function plannedSpec(recipe: JobSpec, plan: DemoPlan): JobSpec {
  const { steps, checkpointEvery, samples } = plan;
  return {
    ...recipe,
    train: { ...recipe.train, steps },
    schedule: {
      ...recipe.schedule,
      warmupSteps: Math.min(recipe.schedule.warmupSteps, Math.floor(steps / 10)),
      decaySteps: Math.round(0.3 * steps),
    },
    checkpoints: { ...recipe.checkpoints, everySteps: checkpointEvery },
    evaluations: withPasskey(recipe.evaluations, { samples }),
  };
}

/**
 * The same job with the carried state switched off, in training and in evaluation. It takes one worker: that computes the same bits as
 * two, and exchanges nothing. Pure.
 */
export function controlSpec(spec: JobSpec): JobSpec {
  return {
    ...spec,
    name: `${spec.name}-control`,
    tbptt: { ...spec.tbptt, carrySsm: false, carryConv: false },
    evaluations: withPasskey(spec.evaluations, { carryState: false }),
    workers: { ...spec.workers, min: 1, max: 1 },
  };
}

function withPasskey(evaluations: readonly EvaluationSpec[], changes: Partial<PasskeyEvaluationSpec>): EvaluationSpec[] {
  return evaluations.map((evaluation) => ({
    ...evaluation,
    passkey: evaluation.passkey && { ...evaluation.passkey, ...changes },
  }));
}

function evaluationTokens(recipe: JobSpec): number {
  return recipe.evaluations.reduce(
    (sum, { passkey }) =>
      sum + (passkey ? passkey.lengths.reduce((a, b) => a + b, 0) * passkey.depths.length * passkey.samples : 0),
    0,
  );
}
