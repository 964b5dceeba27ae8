import { randomStream } from "../random.js";

/**
 * The place in the source of the `position`-th document of an epoch: a pseudo-random permutation of [0, count) that needs no table. A
 * Feistel network permutes the smallest square of a power of two that holds count; what lands outside walks on until it lands inside.
 */
export function shuffledDocument(position: number, count: number, seed: number, epoch: number): number {
  let halfBits = 1;
  while (4 ** halfBits < count) halfBits++;
  const half = 2 ** halfBits;
  const random = randomStream(seed, "document-order", epoch);
  const keys = Array.from({ length: 6 }, () => random.uint32());
  let value = position;
  do {
    let left = Math.floor(value / half);
    let right = value % half;
    for (const key of keys) [left, right] = [right, (left + scramble(right, key)) % half];
    value = left * half + right;
  } while (value >= count);
  return value;
}

function scramble(value: number, key: number): number {
  let h = (value ^ key) | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
