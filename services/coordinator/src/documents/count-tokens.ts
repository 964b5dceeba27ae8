import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import type { DocumentSource } from "@segue/core";
import { writeFileAtomically } from "../store/atomic-file.js";
import type { OpenDocuments } from "./open-documents.js";

/** Goes up whenever the same text may give other tokens than before. */
const FORMAT_VERSION = 1;
const SAMPLES = 64;
const SAMPLE_BYTES = 16 << 10;

export interface CountOptions {
  readonly cacheDir: string;
  readonly signal: AbortSignal;
  /** Told of each document that is counted. */
  readonly onDocument: (tokens: number) => void;
}

/**
 * Tokens of each document, without end token, as training reads them. Of bytes they are known; with a tokenizer every document is
 * tokenized once, while this thread does its other work, and the result is kept in the cache for these documents and this tokenizer.
 * @throws what reading a document throws; the signal's reason
 */
export async function countTokens(documents: OpenDocuments, options: CountOptions): Promise<ArrayLike<number>> {
  const { cacheDir, signal, onDocument } = options;
  const known = await knownTokens(documents, cacheDir);
  if (known) return known;
  const counts = new Float64Array(documents.source.count);
  for (let document = 0; document < counts.length; document++) {
    const tokens = await tokensOf(documents.source, document, signal);
    counts[document] = tokens;
    onDocument(tokens);
  }
  await writeFileAtomically(countsPath(documents, cacheDir), new Uint8Array(counts.buffer));
  return counts;
}

/** What {@link countTokens} gives, if it is known without tokenizing anything. */
export async function knownTokens(documents: OpenDocuments, cacheDir: string): Promise<ArrayLike<number> | undefined> {
  const { byteLengths, tokenizerJson } = documents;
  if (!tokenizerJson) return byteLengths;
  const cached = await readFile(countsPath(documents, cacheDir)).catch(() => undefined);
  if (cached?.length !== 8 * byteLengths.length) return undefined;
  return new Float64Array(Uint8Array.from(cached).buffer);
}

/** About what each document has, from the beginnings of some that lie equally far apart. */
export async function estimateTokens({ byteLengths, beginnings }: OpenDocuments): Promise<ArrayLike<number>> {
  const source = beginnings(SAMPLE_BYTES);
  const samples = Math.min(SAMPLES, source.count);
  let tokens = 0;
  let bytes = 0;
  for (let sample = 0; sample < samples; sample++) {
    const document = Math.floor((sample * source.count) / samples);
    tokens += await tokensOf(source, document);
    bytes += Math.min(byteLengths[document] ?? 0, SAMPLE_BYTES);
  }
  return Float64Array.from(byteLengths, (length) => (bytes === 0 ? 0 : Math.round((length * tokens) / bytes)));
}

async function tokensOf(source: DocumentSource, document: number, signal?: AbortSignal): Promise<number> {
  let tokens = 0;
  for await (const chunk of source.open(document, 0)) {
    tokens += chunk.tokens.length;
    // Heartbeats get their turn between two pieces.
    await turn();
    signal?.throwIfAborted();
  }
  return tokens;
}

function countsPath({ fingerprint, tokenizerJson }: OpenDocuments, cacheDir: string): string {
  const tokenizer = createHash("sha256")
    .update(tokenizerJson ?? "")
    .digest("hex");
  const key = createHash("sha256").update(JSON.stringify([FORMAT_VERSION, fingerprint, tokenizer]));
  return join(cacheDir, "token-counts", `${key.digest("hex").slice(0, 32)}.f64`);
}
