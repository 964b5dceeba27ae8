import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { JobSpec } from "@segue/core";

export const MANIFEST = "manifest.json";
export const FILES = {
  config: "config.json",
  tokenizer: "tokenizer.json",
  model: "model.safetensors",
  optimizer: "optimizer.safetensors",
  lanes: "lanes.safetensors",
  cursor: "cursor.json",
} as const;

/** Where training stands besides weights, moments and lane states; its canonical JSON is `cursor.json` and part of the digest. */
export interface CheckpointCursor {
  readonly step: number;
  readonly tokens: number;
  /** Weighted mean loss of the last step. */
  readonly loss: number;
  readonly documentsRead: number;
  readonly documentsDroppedShort: number;
  /** Position of every lane in the documents, as the segment cutter gave it. */
  readonly data: unknown;
}

/** `manifest.json`, the last file written: a checkpoint without it does not exist. */
export interface Manifest {
  readonly format: 1;
  readonly jobId: string;
  readonly step: number;
  /** SHA-256 over flat weights, first moments, second moments, lane states, cursor.json; hex. */
  readonly digest: string;
  readonly weightsDigest: string;
  readonly createdAtMs: number;
  readonly sizeBytes: number;
  readonly tokens: number;
  readonly loss: number;
  readonly spec: JobSpec;
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
}

export async function readManifest(folder: string): Promise<Manifest> {
  return JSON.parse(await readFile(join(folder, MANIFEST), "utf8")) as Manifest;
}

export function checkpointFolderName(step: number): string {
  return `step-${String(step).padStart(8, "0")}`;
}

/** JSON with sorted keys and no spaces: equal values give equal bytes. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, field: unknown) => {
    if (typeof field !== "object" || field === null || Array.isArray(field)) return field;
    return Object.fromEntries(Object.entries(field).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}
