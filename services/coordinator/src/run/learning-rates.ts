import { learningRateAt, type JobSpec } from "@segue/core";
import type { StepCount } from "../feed/step-cutter.js";

/**
 * The learning rates of a job's steps, a function of spec and documents alone. Where the documents may end before `train.steps`, their
 * steps are counted while training begins; a rate that depends on the count waits for it.
 */
export class LearningRates {
  readonly #spec: JobSpec;
  readonly #count: StepCount | undefined;
  #totalSteps: number | undefined;

  /** @param count undefined: the job has `train.steps` steps as far as its rates are concerned */
  constructor(spec: JobSpec, count: StepCount | undefined) {
    this.#spec = spec;
    this.#count = count;
    if (!count) this.#totalSteps = spec.train.steps;
    // Whoever waits for the count is told of its failure.
    count?.total.then((steps) => (this.#totalSteps = steps)).catch(() => undefined);
  }

  /** The steps that the documents give; undefined where they cannot end. Rejects when a document cannot be read. */
  get counted(): Promise<number> | undefined {
    return this.#count?.total;
  }

  /** Of a step (0-based). Rejects when it depends on a document that cannot be read. */
  async at(step: number): Promise<number> {
    const { optimizer, schedule, train } = this.#spec;
    const totalSteps = this.#totalSteps ?? (this.#isKnown(step) ? train.steps : await this.#count?.total);
    return learningRateAt(step, totalSteps ?? train.steps, optimizer, schedule);
  }

  /** Idempotent. */
  close(): void {
    this.#count?.close();
  }

  /** Whether the step comes before the decay, and the warm-up is as long as it is, whatever else is counted. */
  #isKnown(step: number): boolean {
    const { warmupSteps, decaySteps, decayFrom } = this.#spec.schedule;
    const atLeast = this.#count?.atLeast ?? 0;
    return atLeast >= warmupSteps + decaySteps && step < atLeast - decaySteps && step < (decayFrom?.step ?? Infinity);
  }
}
