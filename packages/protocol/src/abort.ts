/** What `untilAborted` resolves to when the signal came first. */
export const ABORTED: unique symbol = Symbol("aborted");

/** Calls `listener` once when the signal aborts, at once if it has already; returns the function that forgets it. */
export function onAbort(signal: AbortSignal | undefined, listener: () => void): () => void {
  if (!signal) return () => undefined;
  if (signal.aborted) {
    listener();
    return () => undefined;
  }
  signal.addEventListener("abort", listener, { once: true });
  return () => signal.removeEventListener("abort", listener);
}

/**
 * The promise's outcome, or ABORTED if the signal is first. Unlike Promise.race it leaves nothing behind on the signal, which may live
 * for millions of messages, and a rejection that comes too late is not reported as unhandled.
 */
export function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T | typeof ABORTED> {
  return new Promise((resolve, reject) => {
    const forget = onAbort(signal, () => resolve(ABORTED));
    promise.finally(forget).then(resolve, reject);
  });
}

/** Waits that one signal ends, one after the other: a stream of many messages puts one listener on its signal, not one for each. */
export class Waits {
  readonly #signal: AbortSignal;
  readonly #forget: () => void;
  #interrupt: () => void = () => undefined;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    this.#forget = onAbort(signal, () => this.#interrupt());
  }

  /** As {@link untilAborted}. Only one wait at a time. */
  until<T>(promise: Promise<T>): Promise<T | typeof ABORTED> {
    return new Promise((resolve, reject) => {
      this.#interrupt = () => resolve(ABORTED);
      if (this.#signal.aborted) this.#interrupt();
      promise.then(resolve, reject);
    });
  }

  /** Lets go of the signal. */
  close(): void {
    this.#forget();
  }
}
