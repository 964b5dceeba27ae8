import type { DocumentSource } from "../data/document-source.js";
import { SegueError } from "../errors.js";
import { randomStream } from "../random.js";

export interface CorpusText {
  readonly seed: number;
  /** Number of the prompt. */
  readonly index: number;
  readonly tokens: number;
}

/**
 * A prompt of a job's own documents (paper.md sections 1.4 and 3.1): from the start of a document that seed and number draw, and where it is too short
 * of those behind it, each ended by the end token. Documents that training drops for their length are left out here as well. A function of the
 * documents and the arguments alone.
 * @throws SegueError NO_DOCUMENTS when all documents are too short; whatever the source throws
 */
export async function corpusText(
  source: DocumentSource,
  eosId: number,
  minDocumentTokens: number,
  { seed, index, tokens }: CorpusText,
): Promise<Int32Array> {
  const text = new Int32Array(tokens);
  const count = Math.min(source.count, 2 ** 32 - 1);
  const first = randomStream(seed, "corpus", index).below(count);
  let [filled, dropped] = [0, 0];
  for (let document = first; filled < tokens; document = (document + 1) % count) {
    const start = filled;
    let size = 0;
    for await (const chunk of source.open(document, 0)) {
      for (let at = 0; at < chunk.tokens.length && filled < tokens; at++) text[filled++] = chunk.tokens[at]!;
      size += chunk.tokens.length;
      if (filled === tokens && size >= minDocumentTokens) break;
    }
    if (size >= Math.max(1, minDocumentTokens)) {
      dropped = 0;
      if (filled < tokens) text[filled++] = eosId;
      continue;
    }
    filled = start;
    if (++dropped >= count) {
      const message = `No document to read: all ${count} are empty or shorter than data.minDocumentTokens, ${minDocumentTokens}.`;
      throw new SegueError("NO_DOCUMENTS", message, { status: "FAILED_PRECONDITION" });
    }
  }
  return text;
}
