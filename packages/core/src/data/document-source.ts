/** Some consecutive tokens of a document. */
export interface DocumentChunk {
  readonly tokens: ArrayLike<number>;
  /** Loss weight of each token as a label; absent: all 1. */
  readonly weights?: ArrayLike<number> | undefined;
}

/** Documents as token streams, by number. The same number always gives the same tokens. */
export interface DocumentSource {
  /** Documents in one epoch; Infinity for a source that never ends. */
  readonly count: number;
  /** The tokens of a document from the given one on, without an end token. Long documents come in pieces. */
  open(document: number, fromToken: number): AsyncIterable<DocumentChunk>;
  /** Idempotent. */
  close(): Promise<void>;
}

/** The chunks less their first `tokens` tokens. */
export async function* skipTokens(
  chunks: Iterable<DocumentChunk> | AsyncIterable<DocumentChunk>,
  tokens: number,
): AsyncGenerator<DocumentChunk> {
  let left = tokens;
  for await (const chunk of chunks) {
    const size = chunk.tokens.length;
    if (left >= size) left -= size;
    else if (left === 0) yield chunk;
    else {
      yield { tokens: slice(chunk.tokens, left), weights: chunk.weights && slice(chunk.weights, left) };
      left = 0;
    }
  }
}

function slice(values: ArrayLike<number>, from: number): ArrayLike<number> {
  return Array.prototype.slice.call(values, from) as number[];
}
