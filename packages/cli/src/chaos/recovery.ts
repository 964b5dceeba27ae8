/** What a death cost. */
export interface Death {
  readonly name: string;
  readonly atStep: number;
  /** Until a step past `atStep` was committed; undefined when the job ended before. */
  readonly recoveryMs?: number | undefined;
}

interface OpenDeath {
  readonly name: string;
  readonly atStep: number;
  readonly atMs: number;
}

/** Measures, from what is reported of a job, how long each death kept it from going on. */
export class RecoveryWatch {
  readonly #closed: Death[] = [];
  #open: OpenDeath[] = [];
  #step = 0;

  /** Steps committed so far. */
  get step(): number {
    return this.#step;
  }

  /** All deaths so far, in order of their recovery. */
  get deaths(): readonly Death[] {
    return [...this.#closed, ...this.#open.map(({ name, atStep }) => ({ name, atStep }))];
  }

  died(name: string, atMs: number): void {
    this.#open.push({ name, atStep: this.#step, atMs });
  }

  /** The job is reported at `step`. A step at or behind a death's is no recovery from it. */
  reported(step: number, atMs: number): void {
    this.#step = step;
    const isOver = (death: OpenDeath): boolean => step > death.atStep;
    for (const { name, atStep, atMs: diedAtMs } of this.#open.filter(isOver)) {
      this.#closed.push({ name, atStep, recoveryMs: atMs - diedAtMs });
    }
    this.#open = this.#open.filter((death) => !isOver(death));
  }
}
