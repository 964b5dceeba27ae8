import { createHash, randomUUID } from "node:crypto";
import { createReadStream, type ReadStream } from "node:fs";
import { access, mkdir, open, readFile, rename, rm, writeFile, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream";
import { TextDecoder } from "node:util";
import { createGunzip } from "node:zlib";
import { SegueError } from "@segue/core";
import { ContentHash } from "./content-hash.js";
import type { FoundFile } from "./find-files.js";

/** Where the documents of one file lie: byte ranges of a UTF-8 text. */
export interface FileIndex {
  /** The file itself, or its text in the cache when it is compressed or JSON. */
  readonly textPath: string;
  /** Offset and length in bytes of each document in turn. */
  readonly ranges: Float64Array;
  /** Of the documents' content, as it was when they were indexed. */
  readonly digest: string;
  readonly checks: BigUint64Array;
  /** Forgets what the cache has of the file, since its text is not what was indexed: whoever opens it next indexes it again. */
  readonly forget: () => Promise<void>;
}

const FORMAT_VERSION = 2;
const READ_BYTES = 1 << 20;
const MAX_LINE_BYTES = 256 << 20;
const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf];

/** Files of an entry in the cache. */
const ENTRY = { text: "text", ranges: "index.f64", checks: "checks.u64", digest: "digest" } as const;

/**
 * Reads a file once from end to end, checks and hashes it, and keeps the result in the cache until the file's size or times change. A .txt
 * file is one document, each line of a .jsonl file another. What is compressed or JSON is written to the cache as plain text, so that
 * training can read any document from any place without holding it.
 * @throws SegueError DATA_INVALID naming file and line
 */
export async function indexFile(file: FoundFile, textField: string, cacheDir: string): Promise<FileIndex> {
  const identity = [FORMAT_VERSION, file.path, file.bytes, file.version, file.kind === "jsonl" ? textField : ""];
  const key = createHash("sha256").update(JSON.stringify(identity)).digest("hex").slice(0, 32);
  const folder = join(cacheDir, "documents", key);
  const isPlain = file.kind === "txt" && !file.compressed;
  const textPath = isPlain ? file.path : join(folder, ENTRY.text);
  const forget = (): Promise<void> => rm(folder, { recursive: true, force: true });
  const cached = await readEntry(folder);
  if (cached) return { textPath, ...cached, forget };

  const temporary = `${folder}.${randomUUID()}.tmp`;
  await mkdir(temporary, { recursive: true });
  try {
    const text = isPlain ? undefined : await open(join(temporary, ENTRY.text), "w");
    const hash = new ContentHash();
    const ranges = await scan(file, textField, text, hash).finally(() => text?.close());
    const hashes = hash.finish();
    await writeFile(join(temporary, ENTRY.ranges), ranges);
    await writeFile(join(temporary, ENTRY.checks), hashes.checks);
    await writeFile(join(temporary, ENTRY.digest), hashes.digest);
    await putInPlace(temporary, folder);
    return { textPath, ranges, ...hashes, forget };
  } catch (error) {
    if (error instanceof SegueError) throw error;
    throw invalid(file, error instanceof Error ? error.message : String(error), error);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** undefined: the file was not indexed, or not as it is now. */
async function readEntry(folder: string): Promise<Pick<FileIndex, "ranges" | "digest" | "checks"> | undefined> {
  try {
    const [ranges, checks, digest] = await Promise.all([
      readFile(join(folder, ENTRY.ranges)),
      readFile(join(folder, ENTRY.checks)),
      readFile(join(folder, ENTRY.digest), "utf8"),
    ]);
    // Copies, since typed arrays must lie at multiples of their elements.
    return {
      ranges: new Float64Array(Uint8Array.from(ranges).buffer),
      checks: new BigUint64Array(Uint8Array.from(checks).buffer),
      digest,
    };
  } catch {
    return undefined;
  }
}

function scan(file: FoundFile, textField: string, text: FileHandle | undefined, hash: ContentHash): Promise<Float64Array> {
  return file.kind === "txt" ? scanText(file, text, hash) : scanLines(file, textField, text, hash);
}

/** One document: the whole file less a byte order mark. */
async function scanText(file: FoundFile, text: FileHandle | undefined, hash: ContentHash): Promise<Float64Array> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let bytes = 0;
  let start = 0;
  for await (const chunk of readChunks(file)) {
    if (bytes === 0 && BYTE_ORDER_MARK.every((byte, at) => chunk[at] === byte)) start = BYTE_ORDER_MARK.length;
    decode(decoder, chunk, file, { stream: true });
    hash.update(bytes === 0 ? chunk.subarray(start) : chunk);
    await text?.write(chunk);
    bytes += chunk.length;
  }
  decode(decoder, new Uint8Array(0), file, {});
  if (bytes <= start) throw invalid(file, "it is empty");
  hash.endDocument();
  return Float64Array.of(start, bytes - start);
}

/** One document for each line that is not blank: the text in its text field. */
async function scanLines(
  file: FoundFile,
  textField: string,
  text: FileHandle | undefined,
  hash: ContentHash,
): Promise<Float64Array> {
  const ranges: number[] = [];
  let offset = 0;
  let line = 0;
  let pending: Uint8Array[] = [];
  let pendingBytes = 0;
  for await (const content of readLines(file)) {
    line++;
    const record = decode(new TextDecoder("utf-8", { fatal: true }), content, file, {}, line);
    if (record.trim() === "") continue;
    const bytes = Buffer.from(documentText(record, textField, file, line), "utf-8");
    hash.update(bytes);
    hash.endDocument();
    ranges.push(offset, bytes.length);
    offset += bytes.length;
    pending.push(bytes);
    pendingBytes += bytes.length;
    if (pendingBytes >= READ_BYTES) {
      await text?.writev(pending);
      pending = [];
      pendingBytes = 0;
    }
  }
  if (pending.length > 0) await text?.writev(pending);
  if (ranges.length === 0) throw invalid(file, "it holds no document");
  return Float64Array.from(ranges);
}

function documentText(record: string, textField: string, file: FoundFile, line: number): string {
  let value: unknown;
  try {
    value = JSON.parse(record);
  } catch (cause) {
    throw invalid(file, `line ${line} is not JSON: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  }
  const text = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[textField] : undefined;
  if (typeof text === "string") return text;
  const names = typeof value === "object" && value !== null ? Object.keys(value).slice(0, 10).join(", ") : "";
  throw invalid(
    file,
    `line ${line} has no text in the field "${textField}" (data.textField)${names ? `; its fields are ${names}` : ""}`,
  );
}

async function* readLines(file: FoundFile): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = [];
  let partBytes = 0;
  let line = 1;
  for await (const chunk of readChunks(file)) {
    let from = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, from)) {
      yield Buffer.concat([...parts, chunk.subarray(from, end)]);
      parts = [];
      partBytes = 0;
      line++;
      from = end + 1;
    }
    parts.push(Uint8Array.from(chunk.subarray(from)));
    partBytes += chunk.length - from;
    if (partBytes > MAX_LINE_BYTES)
      throw invalid(file, `line ${line} is longer than ${MAX_LINE_BYTES} bytes; put the document in a .txt file`);
  }
  if (partBytes > 0) yield Buffer.concat(parts);
}

function readChunks(file: FoundFile): AsyncIterable<Uint8Array> {
  const raw: ReadStream = createReadStream(file.path, { highWaterMark: READ_BYTES });
  // The pipeline ends both streams when either fails; the iteration below then throws the error.
  return file.compressed
    ? pipeline(raw, createGunzip({ chunkSize: READ_BYTES }), () => undefined)
    : (raw as AsyncIterable<Uint8Array>);
}

function decode(decoder: TextDecoder, bytes: Uint8Array, file: FoundFile, options: { stream?: boolean }, line?: number): string {
  try {
    return decoder.decode(bytes, options);
  } catch (cause) {
    throw invalid(file, `${line === undefined ? "it" : `line ${line}`} is not UTF-8 text`, cause);
  }
}

/** Another process may have put the same content there meanwhile; then that one stays. */
async function putInPlace(temporary: string, folder: string): Promise<void> {
  await rename(temporary, folder).catch(async (error: unknown) => {
    await access(join(folder, ENTRY.ranges)).catch(() => {
      throw error;
    });
  });
}

function invalid(file: FoundFile, reason: string, cause?: unknown): SegueError {
  const description = `${file.path}: ${reason}`;
  return new SegueError("DATA_INVALID", `Not usable as training data: ${description}.`, {
    violations: [{ field: file.field, description }],
    cause,
  });
}
