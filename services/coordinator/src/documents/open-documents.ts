import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { basename, resolve } from "node:path";
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
import { findFiles, type FoundFile } from "./find-files.js";
import { indexFile, type FileIndex } from "./index-file.js";

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
  /** Changes when the documents do, but not with the folder they lie in. */
  readonly fingerprint: string;
  /** Bytes of text of each document; empty for synthetic ones. */
  readonly byteLengths: Float64Array;
  /** The same documents, each cut off after so many bytes. */
  readonly beginnings: (bytes: number) => DocumentSource;
}

/** Files up to this many bytes in all are read through when a job is submitted, larger ones when it starts. */
const CHECK_AT_SUBMIT_BYTES = 64 << 20;

/**
 * The documents of a job, all of them checked and indexed.
 * @throws SegueError SPEC_INVALID with one violation for each file that cannot be used
 */
export async function openDocuments(spec: JobSpec, folders: DataFolders): Promise<OpenDocuments> {
  const { tokenizer, tokenizerJson } = await loadTokenizer(spec, folders.baseDir);
  const { passkey } = spec.data;
  if (passkey) {
    const source = passkeySource(tokenizer, passkey, spec.seed);
    const synthetic = { fingerprint: "passkey", byteLengths: new Float64Array(0), beginnings: () => source };
    return { source, tokenizer, tokenizerJson, ...synthetic };
  }
  const { files, violations } = await findFiles(spec.data.paths, folders.baseDir);
  const indexes = await indexAll(files, spec, folders.cacheDir, violations);
  if (violations.length > 0) throw specInvalid(violations);
  const contents = indexes.map(({ file, index }) => [basename(file.path), index.ranges.length / 2, textBytes(index)]);
  const texts = indexes.map(({ index }) => index);
  const sourceOf = (of: FileIndex[]): DocumentSource => fileSource(of, tokenizer, spec.tokenizer.kind === "bytes");
  return {
    source: sourceOf(texts),
    byteLengths: Float64Array.from(texts.flatMap(({ ranges }) => [...ranges.filter((_, at) => at % 2 === 1)])),
    beginnings: (bytes) => sourceOf(texts.map((text) => ({ ...text, ranges: cutOff(text.ranges, bytes) }))),
    tokenizer,
    tokenizerJson,
    fingerprint: createHash("sha256").update(JSON.stringify(contents)).digest("hex"),
  };
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
): Promise<{ file: FoundFile; index: FileIndex }[]> {
  const indexes = [];
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

function cutOff(ranges: Float64Array, bytes: number): Float64Array {
  return ranges.map((value, at) => (at % 2 === 1 ? Math.min(value, bytes) : value));
}

function textBytes({ ranges }: FileIndex): number {
  let bytes = 0;
  for (let entry = 1; entry < ranges.length; entry += 2) bytes += ranges[entry] ?? 0;
  return bytes;
}
