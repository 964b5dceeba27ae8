/** Rounds of the helpers' SPEC have at most so many steps. */
export const ROUND_STEPS = 5;

/**
 * Holds fake workers before a step, so that a test finds the job in the middle, however fast or slow the machine is:
 * `worker({ onStep: gate.pass })`. Held before step `n`, a job has committed at least `n + 1 - ROUND_STEPS` steps and at most `n`.
 */
export class StepGate {
  #from: number;
  readonly #waiting = new Set<() => void>();

  constructor(from: number) {
    this.#from = from;
  }

  /** The gate that holds a job which has committed at least this many steps. */
  static after(steps: number): StepGate {
    return new StepGate(steps - 1 + ROUND_STEPS);
  }

  readonly pass = async (step: number): Promise<void> => {
    while (step >= this.#from) await new Promise<void>((resolve) => this.#waiting.add(resolve));
  };

  /** Lets all go on up to this step. */
  moveTo(step: number): void {
    this.#from = step;
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  open(): void {
    this.moveTo(Infinity);
  }
}
