/** Turns words, as the pre-tokenizer leaves them, into ids. */
export interface Model {
  readonly vocab: ReadonlyMap<string, number>;
  /**
   * Appends the ids of a word. A word may go on from one that was cut off before it, where {@link joins} is false.
   * @param from what this returned for the part before; 0 for a new word
   */
  encode(word: string, out: number[], from: number): number;
  /** Whether one token may hold both of these neighbours, or their ids may depend on each other. */
  joins(left: string, right: string): boolean;
}
