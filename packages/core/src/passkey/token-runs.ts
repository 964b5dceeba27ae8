/** The same tokens a number of times over. A text of mostly noise is a few of them, however long it is. */
export interface TokenRun {
  readonly tokens: readonly number[];
  readonly times: number;
}

export function countTokens(runs: readonly TokenRun[]): number {
  return runs.reduce((sum, { tokens, times }) => sum + tokens.length * times, 0);
}

/** `count` tokens of the runs, one after the other, from number `from` on. @throws RangeError beyond their end */
export function readTokens(runs: readonly TokenRun[], from: number, count: number): Int32Array {
  const read = new Int32Array(count);
  let filled = 0;
  let start = 0;
  for (const { tokens, times } of runs) {
    const end = start + tokens.length * times;
    for (let at = from + filled; filled < count && at < end; at++) read[filled++] = tokens[(at - start) % tokens.length]!;
    start = end;
  }
  if (filled < count) throw new RangeError(`tokens ${from} to ${from + count} reach beyond the ${start} there are`);
  return read;
}
