import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { SegueError, type JobSpec } from "@segue/core";
import { z } from "zod";

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
  /** 2: digests are over hashes of blocks; 1: over the bytes, in checkpoints of earlier versions. */
  readonly format: 1 | 2;
  readonly jobId: string;
  readonly step: number;
  /** Over flat weights, first moments, second moments, outer momentum, lane states, cursor.json; hex. */
  readonly digest: string;
  readonly weightsDigest: string;
  readonly createdAtMs: number;
  readonly sizeBytes: number;
  readonly tokens: number;
  readonly loss: number;
  readonly spec: JobSpec;
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
}

export interface StoredCheckpoint {
  readonly folder: string;
  readonly manifest: Manifest;
}

const FILE_NAMES = Object.values(FILES);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const manifestSchema = z.object({
  format: z.union([z.literal(1), z.literal(2)]),
  jobId: z.string().regex(/^[a-z0-9-]+$/),
  step: z.int().min(0),
  digest: sha256,
  weightsDigest: sha256,
  createdAtMs: z.number(),
  sizeBytes: z.number(),
  tokens: z.number(),
  // JSON has no NaN; it is written as null.
  loss: z
    .number()
    .nullable()
    .transform((loss) => loss ?? NaN),
  // Written by a coordinator that had checked it.
  spec: z.custom<JobSpec>((spec) => typeof spec === "object" && spec !== null),
  files: z.partialRecord(z.enum(FILE_NAMES), z.object({ bytes: z.int().min(0), sha256 })),
});

/**
 * @param where for the message
 * @throws SegueError CHECKPOINT_DAMAGED
 */
export function parseManifest(json: string, where: string): Manifest {
  try {
    return manifestSchema.parse(JSON.parse(json));
  } catch (cause) {
    throw new SegueError("CHECKPOINT_DAMAGED", `${where}: ${MANIFEST} is no manifest.`, { status: "DATA_LOSS", cause });
  }
}

/** @throws SegueError CHECKPOINT_DAMAGED when it is missing or damaged; errors of the file system */
export async function readManifest(folder: string): Promise<Manifest> {
  const json = await readFile(join(folder, MANIFEST), "utf8").catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ENOENT" && cause.code !== "ENOTDIR") throw cause;
    throw new SegueError("CHECKPOINT_DAMAGED", `${folder}: ${MANIFEST} is missing.`, { status: "DATA_LOSS", cause });
  });
  return parseManifest(json, folder);
}

export function checkpointFolderName(step: number): string {
  return `step-${String(step).padStart(8, "0")}`;
}

/** The step of a folder name; undefined when it is none of a checkpoint. */
export function stepOfFolderName(name: string): number | undefined {
  const [, step] = /^step-(\d{8,})$/.exec(name) ?? [];
  return step === undefined ? undefined : Number(step);
}

/** JSON with sorted keys and no spaces: equal values give equal bytes. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, field: unknown) => {
    if (typeof field !== "object" || field === null || Array.isArray(field)) return field;
    return Object.fromEntries(Object.entries(field).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}
