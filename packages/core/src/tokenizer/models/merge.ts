import type { PairTable } from "./pair-table.js";

/** Up to this many symbols, looking through all pairs is faster than a heap. */
const SHORT = 64;
const NONE = 0x7fffffff;

/** Merges the pair of the lowest rank, of those the leftmost, until there is none. Works in place. @returns how many ids are left */
export function mergeAll(ids: number[], table: PairTable): number {
  return ids.length <= SHORT ? mergeShort(ids, table) : mergeLong(ids, table);
}

const ranks = new Int32Array(SHORT);

function mergeShort(ids: number[], table: PairTable): number {
  let length = ids.length;
  const rankAt = (at: number): number => {
    const slot = table.find(ids[at]!, ids[at + 1]!);
    return slot < 0 ? NONE : table.rank(slot);
  };
  for (let at = 0; at + 1 < length; at++) ranks[at] = rankAt(at);
  for (;;) {
    let best = -1;
    let lowest = NONE;
    for (let at = 0; at + 1 < length; at++) {
      if (ranks[at]! < lowest) {
        lowest = ranks[at]!;
        best = at;
      }
    }
    if (best < 0) return length;
    ids[best] = table.merged(table.find(ids[best]!, ids[best + 1]!));
    length--;
    for (let at = best + 1; at < length; at++) {
      ids[at] = ids[at + 1]!;
      ranks[at] = ranks[at + 1]!;
    }
    if (best > 0) ranks[best - 1] = rankAt(best - 1);
    ranks[best] = best + 1 < length ? rankAt(best) : NONE;
  }
}

/** Positions fit into this many, ranks above them into what is left of a double's 53 bits. */
const POSITIONS = 2 ** 26;

function mergeLong(ids: number[], table: PairTable): number {
  const { length } = ids;
  if (length >= POSITIONS) throw new RangeError(`a word of ${length} symbols`);
  const symbols = Int32Array.from(ids);
  const next = Int32Array.from({ length }, (_, at) => at + 1);
  const previous = Int32Array.from({ length }, (_, at) => at - 1);
  const heap = new MinHeap(2 * length);
  const offer = (at: number): void => {
    if (at < 0 || next[at]! >= length) return;
    const slot = table.find(symbols[at]!, symbols[next[at]!]!);
    if (slot >= 0) heap.push(table.rank(slot) * POSITIONS + at);
  };
  for (let at = 0; at + 1 < length; at++) offer(at);
  for (let key = heap.pop(); key >= 0; key = heap.pop()) {
    const at = key % POSITIONS;
    const right = next[at]!;
    if (symbols[at] === -1 || right >= length) continue;
    const slot = table.find(symbols[at]!, symbols[right]!);
    // The entry is out of date when another pair stands there by now.
    if (slot < 0 || table.rank(slot) !== (key - at) / POSITIONS) continue;
    symbols[at] = table.merged(slot);
    symbols[right] = -1;
    next[at] = next[right]!;
    if (next[at] < length) previous[next[at]] = at;
    offer(previous[at]!);
    offer(at);
  }
  let left = 0;
  for (let at = 0; at < length; at = next[at]!) ids[left++] = symbols[at]!;
  return left;
}

class MinHeap {
  #keys: Float64Array;
  #size = 0;

  constructor(capacity: number) {
    this.#keys = new Float64Array(capacity);
  }

  push(key: number): void {
    if (this.#size === this.#keys.length) {
      const larger = new Float64Array(2 * this.#size);
      larger.set(this.#keys);
      this.#keys = larger;
    }
    const keys = this.#keys;
    let at = this.#size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (keys[parent]! <= key) break;
      keys[at] = keys[parent]!;
      at = parent;
    }
    keys[at] = key;
  }

  /** The smallest key, which leaves; -1: the heap is empty. */
  pop(): number {
    if (this.#size === 0) return -1;
    const keys = this.#keys;
    const top = keys[0]!;
    const key = keys[--this.#size]!;
    let at = 0;
    for (let child = 1; child < this.#size; child = 2 * at + 1) {
      if (child + 1 < this.#size && keys[child + 1]! < keys[child]!) child++;
      if (keys[child]! >= key) break;
      keys[at] = keys[child]!;
      at = child;
    }
    keys[at] = key;
    return top;
  }
}
