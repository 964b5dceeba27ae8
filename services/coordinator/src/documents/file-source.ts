import { createReadStream } from "node:fs";
import { skipTokens, type DocumentChunk, type DocumentSource, type Tokenizer } from "@segue/core";
import type { FileIndex } from "./index-file.js";
import { textPieces } from "./text-pieces.js";

const READ_BYTES = 64 << 10;

/**
 * The documents of indexed files. Each is read as a stream of at most 64 KiB at a time.
 * @param isBytes whether tokens are the text's bytes: then a document is entered at any token at once, else it is tokenized up to there
 */
export function fileSource(files: readonly FileIndex[], tokenizer: Tokenizer, isBytes: boolean): DocumentSource {
  const firstDocuments: number[] = [];
  let count = 0;
  for (const { ranges } of files) {
    firstDocuments.push(count);
    count += ranges.length / 2;
  }
  const locate = (document: number): { path: string; offset: number; length: number } => {
    let low = 0;
    let high = files.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if ((firstDocuments[middle] ?? 0) <= document) low = middle;
      else high = middle - 1;
    }
    const file = files[low];
    const entry = 2 * (document - (firstDocuments[low] ?? 0));
    const offset = file?.ranges[entry];
    const length = file?.ranges[entry + 1];
    if (!file || offset === undefined || length === undefined) throw new RangeError(`no document ${document}`);
    return { path: file.textPath, offset, length };
  };
  return {
    count,
    open(document, fromToken) {
      const { path, offset, length } = locate(document);
      if (isBytes) return byteChunks(path, offset + fromToken, length - fromToken);
      return skipTokens(tokenChunks(path, offset, length, tokenizer), fromToken);
    },
    close: () => Promise.resolve(),
  };
}

async function* byteChunks(path: string, offset: number, length: number): AsyncGenerator<DocumentChunk> {
  for await (const tokens of readRange(path, offset, length)) yield { tokens };
}

async function* tokenChunks(path: string, offset: number, length: number, tokenizer: Tokenizer): AsyncGenerator<DocumentChunk> {
  for await (const piece of textPieces(decoded(readRange(path, offset, length)))) yield { tokens: tokenizer.encode(piece) };
}

async function* decoded(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  for await (const chunk of chunks) yield decoder.decode(chunk, { stream: true });
  yield decoder.decode();
}

async function* readRange(path: string, offset: number, length: number): AsyncGenerator<Uint8Array> {
  if (length <= 0) return;
  let left = length;
  for await (const chunk of createReadStream(path, {
    start: offset,
    end: offset + length - 1,
    highWaterMark: READ_BYTES,
  }) as AsyncIterable<Uint8Array>) {
    left -= chunk.length;
    yield chunk;
  }
  if (left > 0) throw new Error(`${path} became shorter while it was read`);
}
