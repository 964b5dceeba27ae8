import type { CutStep, StepCutter } from "./step-cutter.js";

/**
 * Cuts steps ahead of need and keeps each until it is committed, since a round that is voided needs the same segments again. Only one
 * cut runs at a time.
 */
export class SegmentFeed {
  readonly #cutter: StepCutter;
  readonly #steps = new Map<number, CutStep>();
  #nextStep: number;
  #endStep: number | undefined;
  /** Why nothing can be cut any more: a cutter that failed has lost its place. */
  #failure: { readonly error: unknown } | undefined;
  #cutting: Promise<void> = Promise.resolve();
  #closing: Promise<void> | undefined;

  /** @param firstStep the step that the cutter cuts first */
  constructor(cutter: StepCutter, firstStep: number) {
    this.#cutter = cutter;
    this.#nextStep = firstStep;
  }

  get eosId(): number {
    return this.#cutter.eosId;
  }

  get tokenizerJson(): Uint8Array | undefined {
    return this.#cutter.tokenizerJson;
  }

  get fingerprint(): unknown {
    return this.#cutter.fingerprint;
  }

  get leftOut(): readonly string[] {
    return this.#cutter.leftOut ?? [];
  }

  /** The step at which the data ended; undefined as long as it has not. */
  get endStep(): number | undefined {
    return this.#endStep;
  }

  /** The segments of a step that is not committed yet; undefined past the end of the data. Rejects from the first step on that could not be cut. */
  async get(step: number): Promise<CutStep | undefined> {
    while (step >= this.#nextStep && this.#endStep === undefined && !this.#closing) {
      const cut = this.#cutting.then(() => this.#cutOne(step));
      // Whoever asks later is told as well, by the cut of his own.
      this.#cutting = cut.catch(() => undefined);
      await cut;
    }
    return this.#steps.get(step);
  }

  /** Forgets the steps before `step`: they are committed. */
  discardBefore(step: number): void {
    for (const held of this.#steps.keys()) if (held < step) this.#steps.delete(held);
  }

  /** Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#cutting.then(() => this.#cutter.close());
    return this.#closing;
  }

  async #cutOne(wanted: number): Promise<void> {
    if (this.#nextStep > wanted || this.#endStep !== undefined || this.#closing) return;
    if (this.#failure) throw this.#failure.error;
    const cut = await this.#cutter.next().catch((error: unknown) => {
      this.#failure = { error };
      throw error;
    });
    if (cut) this.#steps.set(this.#nextStep++, cut);
    else this.#endStep = this.#nextStep;
  }
}
