import { onAbort } from "../abort.js";

/** Aborts its signal when it is not fed in time, or with the outer signal. */
export class Watchdog {
  readonly #controller = new AbortController();
  readonly #forget: () => void;
  #timer: NodeJS.Timeout | undefined;
  #ms = 0;
  starved = false;

  constructor(outer: AbortSignal | undefined) {
    this.#forget = onAbort(outer, () => this.#controller.abort());
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Grants `ms` from now on. */
  feed(ms: number): void {
    if (ms === this.#ms && this.#timer) {
      this.#timer.refresh();
      return;
    }
    clearTimeout(this.#timer);
    this.#ms = ms;
    this.#timer = setTimeout(() => {
      this.starved = true;
      this.#controller.abort();
    }, ms);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#forget();
  }
}
