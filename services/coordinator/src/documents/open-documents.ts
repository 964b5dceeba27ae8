import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import {
  createTokenizer,
  minimumPasskeyPromptTokens,
  passkeySource,
  SegueError,
  specInvalid,
  type DocumentSource,
  type JobSpec,
  type Tokenizer,
  type Violation,
} from "@segue/core";
import { fileSource } from "./file-source.js";
import { findFiles, type FoundFile, type FoundFiles } from "./find-files.js";
import {
  documentsDiffer,
  fingerprintOf,
  isSameReading,
  isSameTokenizer,
  type Fingerprint,
  type IndexedFile,
  type StoredFingerprint,
} from "./fingerprint.js";
import { indexFile } from "./index-file.js";

export interface DataFolders {
  /** What relative paths of a spec start from. */
  readonly baseDir: string;
  /** Where texts and indexes are kept; `<store>/cache`. */
  readonly cacheDir: string;
}

export interface OpenDocuments {
  readonly source: DocumentSource;
  readonly tokenizer: Tokenizer;
  /** The tokenizer.json; absent for bytes. */
  readonly tokenizerJson?: Uint8Array | undefined;
  readonly fingerprint: Fingerprint;
  /** What of the files named is left out, in sentences for people. */
  readonly leftOut: readonly string[];
  /** Bytes of text of each document; empty for synthetic ones. */
  readonly byteLengths: Float64Array;
  /** The same documents, each cut off after so many bytes. */
  readonly beginnings: (bytes: number) => DocumentSource;
}

/** What a job was trained on so far. */
export interface TrainedOn {
  readonly fingerprint: StoredFingerprint;
  /** SHA-256 of the checkpoint's tokenizer.json; absent when there is none. */
  readonly tokenizerSha256?: string | undefined;
}

/** Files up to this many bytes in all are read through when a job is submitted, larger ones when it starts. */
const CHECK_AT_SUBMIT_BYTES = 64 << 20;

/**
 * The documents of a job, all of them checked and indexed.
 * @param trainedOn absent: whatever is there will do
 * @throws SegueError SPEC_INVALID with one violation for each file that cannot be used; DATA_CHANGED when they are not those of `trainedOn`
 */
export async function openDocuments(spec: JobSpec, folders: DataFolders, trainedOn?: TrainedOn): Promise<OpenDocuments> {
  const { tokenizer, tokenizerJson } = await loadTokenizer(spec, folders.baseDir);
  const found = await findFiles(spec.data.paths, folders.baseDir);
  const opened = await openFiles(found, spec, folders, tokenizerJson, trainedOn).catch(async (error: unknown) => {
    // A job of an earlier version goes on with the files of its time.
    const before = await findFiles(spec.data.paths, folders.baseDir, "before");
    if (!trainedOn || isDeepStrictEqual(before.files, found.files)) throw error;
    return openFiles(before, spec, folders, tokenizerJson, trainedOn).catch(() => Promise.reject(error as Error));
  });
  const { passkey } = spec.data;
  const texts = opened.files.map(({ index }) => index);
  const beginnings = (bytes: number): DocumentSource =>
    passkey
      ? passkeySource(tokenizer, passkey, spec.seed)
      : fileSource(texts, tokenizer, { isBytes: spec.tokenizer.kind === "bytes", atMostBytes: bytes });
  return {
    source: beginnings(Infinity),
    beginnings,
    byteLengths: Float64Array.from(texts.flatMap(({ ranges }) => [...ranges.filter((_, at) => at % 2 === 1)])),
    tokenizer,
    tokenizerJson,
    fingerprint: opened.fingerprint,
    leftOut: found.leftOut,
  };
}

/** @throws SegueError SPEC_INVALID, DATA_CHANGED */
async function openFiles(
  found: FoundFiles,
  spec: JobSpec,
  { cacheDir }: DataFolders,
  tokenizerJson: Uint8Array | undefined,
  trainedOn: TrainedOn | undefined,
): Promise<{ readonly files: readonly IndexedFile[]; readonly fingerprint: Fingerprint }> {
  const violations = [...found.violations];
  const files = await indexAll(found.files, spec, cacheDir, violations);
  if (violations.length > 0) throw specInvalid(violations);
  const fingerprint = fingerprintOf(files, tokenizerJson);
  if (trainedOn) {
    const { fingerprint: stored, tokenizerSha256 } = trainedOn;
    const difference = documentsDiffer(stored, fingerprint, files);
    if (difference !== undefined) throw dataChanged(`The documents are not those that the job was trained on: ${difference}.`);
    if (!isSameTokenizer(stored, fingerprint, tokenizerSha256)) {
      throw dataChanged(`The tokenizer ${spec.tokenizer.file ?? ""} is not the one that the job was trained with.`);
    }
    if (!isSameReading(stored, fingerprint)) {
      throw dataChanged(
        "The job began with an earlier version of Segue, which read its tokenizer to other tokens where it cut documents; begin it anew.",
      );
    }
  }
  return { files, fingerprint };
}

function dataChanged(what: string): SegueError {
  return new SegueError("DATA_CHANGED", what, { status: "FAILED_PRECONDITION" });
}

/**
 * Checks what a spec says of files, as far as that is quick.
 * @throws SegueError SPEC_INVALID with one violation per problem
 */
export async function checkDocuments(
  spec: JobSpec,
  folders: DataFolders,
): Promise<{ readonly tokenizer: Tokenizer; readonly leftOut: string[] }> {
  const { files, violations, leftOut } = await findFiles(spec.data.paths, folders.baseDir);
  if (isQuick(files)) await indexAll(files, spec, folders.cacheDir, violations);
  const loaded = await loadTokenizer(spec, folders.baseDir).catch((error: unknown) => {
    if (!(error instanceof SegueError) || !error.violations) throw error;
    violations.push(...error.violations);
    return undefined;
  });
  const tokenizer = loaded?.tokenizer;
  if (tokenizer) violations.push(...passkeyViolations(spec, tokenizer));
  if (!tokenizer || violations.length > 0) throw specInvalid(violations);
  return { tokenizer, leftOut };
}

/** Whether the files of a spec are so small that they are read through when it is submitted. */
export async function isQuickToIndex(spec: JobSpec, { baseDir }: DataFolders): Promise<boolean> {
  return isQuick((await findFiles(spec.data.paths, baseDir)).files);
}

function isQuick(files: readonly FoundFile[]): boolean {
  return files.reduce((sum, { bytes }) => sum + bytes, 0) <= CHECK_AT_SUBMIT_BYTES;
}

async function indexAll(
  files: readonly FoundFile[],
  spec: JobSpec,
  cacheDir: string,
  violations: Violation[],
): Promise<IndexedFile[]> {
  const indexes: IndexedFile[] = [];
  for (const file of files) {
    try {
      indexes.push({ file, index: await indexFile(file, spec.data.textField, cacheDir) });
    } catch (error) {
      if (!(error instanceof SegueError) || !error.violations) throw error;
      violations.push(...error.violations);
    }
  }
  return indexes;
}

async function loadTokenizer(spec: JobSpec, baseDir: string): Promise<Pick<OpenDocuments, "tokenizer" | "tokenizerJson">> {
  const { file } = spec.tokenizer;
  if (spec.tokenizer.kind === "bytes" || file === undefined) return { tokenizer: createTokenizer(spec.tokenizer) };
  const path = resolve(baseDir, file);
  try {
    const tokenizerJson = await readFile(path);
    return { tokenizer: createTokenizer(spec.tokenizer, JSON.parse(tokenizerJson.toString("utf8"))), tokenizerJson };
  } catch (error) {
    const description = `${path} cannot be used: ${error instanceof Error ? error.message : String(error)}`;
    throw specInvalid([{ field: "tokenizer.file", description }]);
  }
}

/** What the length of passkey texts in this tokenizer's tokens forbids. */
function passkeyViolations(spec: JobSpec, tokenizer: Tokenizer): Violation[] {
  const violations: Violation[] = [];
  try {
    if (spec.data.passkey) passkeySource(tokenizer, spec.data.passkey, spec.seed);
  } catch (error) {
    if (!(error instanceof SegueError)) throw error;
    violations.push({ field: "data.passkey.documentTokens", description: error.message });
  }
  spec.evaluations.forEach(({ passkey }, index) => {
    if (!passkey) return;
    const least = minimumPasskeyPromptTokens(tokenizer, passkey.template, passkey.digits);
    const tooShort = passkey.lengths.find((length) => length < least);
    if (tooShort === undefined) return;
    const field = `evaluations[${index}].passkey.lengths`;
    violations.push({ field, description: `must be at least ${least} to hold a prompt, but one is ${tooShort}` });
  });
  return violations;
}
