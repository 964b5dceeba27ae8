interface Waiting {
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

interface Gathering {
  left: number;
  waiting?: Waiting;
}

/** Counts what arrives for each key and wakes who waits for all of it; once failed, every wait fails. */
export class Arrivals {
  readonly #expectedOf: (key: string) => number;
  readonly #gatherings = new Map<string, Gathering>();
  #failure: { readonly reason: unknown } | undefined;

  /** @param expectedOf how many things arrive for a key */
  constructor(expectedOf: (key: string) => number) {
    this.#expectedOf = expectedOf;
  }

  add(key: string): void {
    const gathering = this.#gathering(key);
    gathering.left--;
    if (gathering.left === 0) gathering.waiting?.resolve();
  }

  /** Waits for everything of a key and forgets the key. Only one may wait for a key. */
  async all(key: string): Promise<void> {
    const gathering = this.#gathering(key);
    if (this.#failure) throw this.#failure.reason;
    if (gathering.left > 0) await new Promise<void>((resolve, reject) => (gathering.waiting = { resolve, reject }));
    this.#gatherings.delete(key);
  }

  /** What is waited for will not come. Only the first reason counts. */
  fail(reason: unknown): void {
    this.#failure ??= { reason };
    for (const { left, waiting } of this.#gatherings.values()) if (left > 0) waiting?.reject(this.#failure.reason);
  }

  #gathering(key: string): Gathering {
    let gathering = this.#gatherings.get(key);
    if (!gathering) this.#gatherings.set(key, (gathering = { left: this.#expectedOf(key) }));
    return gathering;
  }
}
