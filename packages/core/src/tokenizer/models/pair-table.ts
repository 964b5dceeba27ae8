/** Ranks of pairs of ids and what they merge to, in flat arrays: the innermost look-up of byte pair encoding. */
export class PairTable {
  readonly #mask: number;
  readonly #lefts: Int32Array;
  readonly #rights: Int32Array;
  readonly #ranks: Int32Array;
  readonly #merged: Int32Array;

  /** @param pairs most that will be set */
  constructor(pairs: number) {
    let size = 16;
    while (size < 2 * pairs) size *= 2;
    this.#mask = size - 1;
    this.#lefts = new Int32Array(size).fill(-1);
    this.#rights = new Int32Array(size);
    this.#ranks = new Int32Array(size);
    this.#merged = new Int32Array(size);
  }

  set(left: number, right: number, rank: number, merged: number): void {
    const slot = this.#slot(left, right);
    this.#lefts[slot] = left;
    this.#rights[slot] = right;
    this.#ranks[slot] = rank;
    this.#merged[slot] = merged;
  }

  /** Where a pair stands; negative: nowhere. */
  find(left: number, right: number): number {
    const slot = this.#slot(left, right);
    return this.#lefts[slot] === -1 ? -1 : slot;
  }

  rank(slot: number): number {
    return this.#ranks[slot]!;
  }

  merged(slot: number): number {
    return this.#merged[slot]!;
  }

  #slot(left: number, right: number): number {
    let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
    hash ^= hash >>> 15;
    let slot = hash & this.#mask;
    while (this.#lefts[slot] !== -1 && (this.#lefts[slot] !== left || this.#rights[slot] !== right)) slot = (slot + 1) & this.#mask;
    return slot;
  }
}
