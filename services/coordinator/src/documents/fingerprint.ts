import { createHash } from "node:crypto";
import { basename } from "node:path";
import type { FoundFile } from "./find-files.js";
import type { FileIndex } from "./index-file.js";

/**
 * What a job is trained on: a part of its data cursor, and so of every checkpoint. It changes with the documents, their order and the
 * tokenizer, not with names or the folder they lie in.
 */
export interface Fingerprint {
  readonly version: 2;
  /** 0 for synthetic documents, which are a function of the spec. */
  readonly files: number;
  readonly documents: number;
  readonly bytes: number;
  /** SHA-256 over the files' digests in turn (see ContentHashes); hex. */
  readonly sha256: string;
  /** SHA-256 of the tokenizer.json; absent for bytes. */
  readonly tokenizer?: string;
  /** How documents are read with a tokenizer.json: 2 gives the ids of the whole; absent: as earlier versions did, cut at some white space. */
  readonly reading?: 2;
}

/** Version 1, of earlier checkpoints, is a string: names, numbers of documents and bytes only. */
export type StoredFingerprint = string | Fingerprint;

export interface IndexedFile {
  readonly file: FoundFile;
  readonly index: FileIndex;
}

export function fingerprintOf(files: readonly IndexedFile[], tokenizerJson: Uint8Array | undefined): Fingerprint {
  const digest = createHash("sha256");
  for (const { index } of files) digest.update(index.digest, "hex");
  return {
    version: 2,
    files: files.length,
    documents: files.reduce((sum, { index }) => sum + index.ranges.length / 2, 0),
    bytes: files.reduce((sum, { index }) => sum + textBytes(index), 0),
    sha256: digest.digest("hex"),
    ...(tokenizerJson && { tokenizer: sha256Of(tokenizerJson), reading: 2 }),
  };
}

export function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** How the documents differ from those of a stored fingerprint, in a sentence without an end; undefined: they do not. */
export function documentsDiffer(stored: StoredFingerprint, found: Fingerprint, files: readonly IndexedFile[]): string | undefined {
  if (typeof stored === "string") {
    if (found.files === 0 ? stored === "passkey" : stored === earlierFingerprint(files)) return undefined;
    return `names or sizes of the ${found.documents} documents in ${found.files} files are not those of then`;
  }
  if (stored.sha256 === found.sha256) return undefined;
  const said = ({ documents, files: count, bytes }: Fingerprint): string => `${documents} in ${count} files with ${bytes} bytes`;
  if (said(stored) === said(found)) return `${said(found)}, as before, but with other content`;
  return `${said(found)} now, ${said(stored)} then`;
}

/** A checkpoint of version 1 knows its tokenizer only as a file of its own. */
export function isSameTokenizer(stored: StoredFingerprint, found: Fingerprint, checkpointTokenizer: string | undefined): boolean {
  const known = typeof stored === "string" ? checkpointTokenizer : (stored.tokenizer ?? "");
  return known === undefined || known === (found.tokenizer ?? "");
}

/** Whether places in the documents mean the same tokens; those of synthetic documents always did. */
export function isSameReading(stored: StoredFingerprint, found: Fingerprint): boolean {
  return found.files === 0 || (typeof stored === "string" ? undefined : stored.reading) === found.reading;
}

function earlierFingerprint(files: readonly IndexedFile[]): string {
  const contents = files.map(({ file, index }) => [basename(file.path), index.ranges.length / 2, textBytes(index)]);
  return createHash("sha256").update(JSON.stringify(contents)).digest("hex");
}

function textBytes({ ranges }: FileIndex): number {
  let bytes = 0;
  for (let entry = 1; entry < ranges.length; entry += 2) bytes += ranges[entry] ?? 0;
  return bytes;
}
