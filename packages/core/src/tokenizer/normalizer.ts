/** Where a text begins and ends: a section goes from one added token, or an end of the document, to the next. */
export interface Edges {
  /** Whether the text is the begin of its section, not the continuation of text that was cut off before. */
  readonly begins: boolean;
  /** Whether the text reaches the end of its section. */
  readonly ends: boolean;
}

/** Two neighbours, each as the characters that may stand there. */
export interface Neighbours {
  readonly left: readonly string[];
  readonly right: readonly string[];
}

export interface Normalizer {
  apply(text: string, edges: Edges): string;
  /** What stands on both sides of a cut between these neighbours afterwards; undefined: the sides may depend on each other. */
  neighbours(before: Neighbours): Neighbours | undefined;
  /** Whether the begin of a section is treated in another way than the rest. */
  readonly marksBegin: boolean;
}
