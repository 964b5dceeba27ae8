import { wilsonInterval, type Interval } from "../statistics/wilson.js";

export interface PasskeyCount {
  /** Context length in tokens. */
  readonly length: number;
  /** Place of the key as a share of the context. */
  readonly depth: number;
  readonly correct: number;
  readonly samples: number;
}

export interface RecentAccuracy {
  /** Keys at most this many tokens from the end count. */
  readonly lastTokens: number;
  readonly length: number;
  readonly correct: number;
  readonly samples: number;
  readonly accuracy: number;
  readonly interval: Interval;
}

/** The paper's choice (paper.md section 4.5). */
export const RECENT_TOKENS = [1024, 2048, 4096, 8192] as const;

/**
 * Accuracy on keys that lie in the last r tokens, by context length: it falls with the length when a model cannot forget what came before
 * them (paper.md section 4.5). Lengths without such a key are left out, and so is an r that takes in whole contexts only.
 */
export function recentAccuracy(cells: readonly PasskeyCount[], lastTokens: readonly number[] = RECENT_TOKENS): RecentAccuracy[] {
  const lengths = [...new Set(cells.map(({ length }) => length))].sort((a, b) => a - b);
  const longest = lengths.at(-1) ?? 0;
  return lastTokens
    .filter((tokens) => tokens < longest)
    .flatMap((tokens) =>
      lengths.flatMap((length) => {
        const recent = cells.filter((cell) => cell.length === length && (1 - cell.depth) * length <= tokens);
        const correct = recent.reduce((sum, cell) => sum + cell.correct, 0);
        const samples = recent.reduce((sum, cell) => sum + cell.samples, 0);
        if (samples === 0) return [];
        const interval = wilsonInterval(correct, samples);
        return [{ lastTokens: tokens, length, correct, samples, accuracy: correct / samples, interval }];
      }),
    );
}
