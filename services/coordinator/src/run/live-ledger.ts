import { apply, type Ledger, type LedgerEvent } from "@segue/core";

/** The ledger of a running job: the one place where its events happen. */
export class LiveLedger {
  readonly #onApplied: (event: LedgerEvent, before: Ledger, after: Ledger) => void;
  #state: Ledger;
  #generationOver = new AbortController();

  /** @param onApplied told of every event, after it */
  constructor(state: Ledger, onApplied: (event: LedgerEvent, before: Ledger, after: Ledger) => void) {
    this.#state = state;
    this.#onApplied = onApplied;
  }

  get state(): Ledger {
    return this.#state;
  }

  /** Aborts when the present generation becomes void. */
  get generationOver(): AbortSignal {
    return this.#generationOver.signal;
  }

  apply(event: LedgerEvent): void {
    const before = this.#state;
    this.#state = apply(before, event);
    if (event.type === "generationFormed") this.#generationOver = new AbortController();
    if (before.phase !== "none" && this.#state.phase === "none") this.#generationOver.abort();
    this.#onApplied(event, before, this.#state);
  }
}
