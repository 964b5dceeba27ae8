import { open } from "node:fs/promises";
import { documentTokens, SegueError, skipTokens, type DocumentChunk, type DocumentSource, type Tokenizer } from "@segue/core";
import { isStretch, STRETCH_BYTES, stretchesOf } from "./content-hash.js";
import type { FileIndex } from "./index-file.js";

/** A document in its file. */
interface Place {
  readonly file: FileIndex;
  readonly offset: number;
  readonly length: number;
  /** What of it is read. */
  readonly read: number;
  /** Of its first stretch, among those of the file. */
  readonly stretch: number;
}

export interface FileSourceOptions {
  /** Whether tokens are the text's bytes: then a document is entered at any token at once, else it is tokenized up to there. */
  readonly isBytes: boolean;
  /** Of each document; what follows is left out. Infinity: all. */
  readonly atMostBytes: number;
}

/**
 * The documents of indexed files. Each is read as a stream of at most 64 KiB at a time, which is compared with what was indexed before
 * anybody sees it: a file that changes meanwhile ends the stream with an error, never with another text.
 */
export function fileSource(files: readonly FileIndex[], tokenizer: Tokenizer, options: FileSourceOptions): DocumentSource {
  const { isBytes, atMostBytes } = options;
  const firstDocuments: number[] = [];
  let count = 0;
  for (const { ranges } of files) {
    firstDocuments.push(count);
    count += ranges.length / 2;
  }
  const firstStretches = files.map(stretchStarts);
  const locate = (document: number): Place => {
    let low = 0;
    let high = files.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if ((firstDocuments[middle] ?? 0) <= document) low = middle;
      else high = middle - 1;
    }
    const file = files[low];
    const inFile = document - (firstDocuments[low] ?? 0);
    const offset = file?.ranges[2 * inFile];
    const length = file?.ranges[2 * inFile + 1];
    if (!file || offset === undefined || length === undefined) throw new RangeError(`no document ${document}`);
    return { file, offset, length, read: Math.min(length, atMostBytes), stretch: firstStretches[low]?.[inFile] ?? 0 };
  };
  return {
    count,
    open(document, fromToken) {
      const place = locate(document);
      if (isBytes) return byteChunks(place, fromToken);
      return skipTokens(tokenChunks(place, tokenizer), fromToken);
    },
    close: () => Promise.resolve(),
  };
}

/** Of each document's first stretch, among those of the file. */
function stretchStarts({ ranges }: FileIndex): Uint32Array {
  const starts = new Uint32Array(ranges.length / 2);
  let next = 0;
  for (let document = 0; document < starts.length; document++) {
    starts[document] = next;
    next += stretchesOf(ranges[2 * document + 1] ?? 0);
  }
  return starts;
}

async function* byteChunks(place: Place, fromByte: number): AsyncGenerator<DocumentChunk> {
  for await (const tokens of readFrom(place, fromByte)) yield { tokens };
}

async function* tokenChunks(place: Place, tokenizer: Tokenizer): AsyncGenerator<DocumentChunk> {
  for await (const tokens of documentTokens(readFrom(place, 0), tokenizer)) yield { tokens };
}

/** The bytes of a document from one of them on, every stretch checked before it is given out. */
async function* readFrom({ file, offset, length, read, stretch }: Place, fromByte: number): AsyncGenerator<Uint8Array> {
  if (fromByte >= read) return;
  const handle = await open(file.textPath).catch((error: unknown) => unreadable(file, error));
  try {
    for (let index = Math.floor(fromByte / STRETCH_BYTES); index * STRETCH_BYTES < read; index++) {
      const start = index * STRETCH_BYTES;
      const bytes = new Uint8Array(Math.min(STRETCH_BYTES, length - start));
      for (let filled = 0; filled < bytes.length;) {
        const { bytesRead } = await handle
          .read(bytes, filled, bytes.length - filled, offset + start + filled)
          .catch((error: unknown) => unreadable(file, error));
        if (bytesRead === 0) throw await changed(file, "it became shorter");
        filled += bytesRead;
      }
      if (!isStretch(bytes, file.checks[stretch + index])) {
        throw await changed(file, `bytes ${offset + start} to ${offset + start + bytes.length - 1} are others`);
      }
      yield bytes.subarray(Math.max(0, fromByte - start), Math.min(bytes.length, read - start));
    }
  } finally {
    await handle.close();
  }
}

async function changed(file: FileIndex, how: string): Promise<SegueError> {
  await file.forget();
  return new SegueError("DATA_CHANGED", `${file.textPath} has changed since it was indexed: ${how}.`, {
    status: "FAILED_PRECONDITION",
  });
}

async function unreadable(file: FileIndex, cause: unknown): Promise<never> {
  if ((cause as NodeJS.ErrnoException).code === "ENOENT") await file.forget();
  const why = cause instanceof Error ? cause.message : String(cause);
  throw new SegueError("DATA_UNREADABLE", `${file.textPath} cannot be read: ${why}.`, { status: "FAILED_PRECONDITION", cause });
}
