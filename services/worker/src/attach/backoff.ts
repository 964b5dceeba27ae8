const FIRST_MS = 200;
const LONGEST_MS = 5_000;

/**
 * Pause before the next attempt after `failures` failed ones in a row (1: the first), doubling up to 5 s. `jitter` in [0, 1) spreads
 * workers that lost the same coordinator over the second half of the pause.
 */
export function backoffMs(failures: number, jitter: number): number {
  const fullMs = Math.min(LONGEST_MS, FIRST_MS * 2 ** (failures - 1));
  return fullMs * (0.5 + 0.5 * jitter);
}
