import { createHash } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { SegueError, type JobSpec } from "@segue/core";
import type { FileRangesTensor } from "@segue/protocol";
import { checkpointDigest, type CheckpointDigest } from "./checkpoint-digest.js";
import { hashFile, type DataSink } from "./hashed-file.js";
import { checkpointLayout, type CheckpointLayout } from "./layout.js";
import { FILES, readManifest, type CheckpointCursor, type Manifest } from "./manifest.js";

export interface LoadedCheckpoint {
  readonly folder: string;
  readonly manifest: Manifest;
  readonly cursor: CheckpointCursor;
  /** Lane states of every shard in order, f32 [lanesPerShard, laneStateFloats]. */
  readonly states: readonly Uint8Array[];
}

/**
 * Reads a checkpoint and verifies every byte of it: sizes, the SHA-256 of each file that the manifest names, and the digest over all.
 * @throws SegueError CHECKPOINT_DAMAGED saying which file; errors of the file system
 */
export async function loadCheckpoint(folder: string, spec: JobSpec): Promise<LoadedCheckpoint> {
  const manifest = await readManifest(folder);
  const layout = checkpointLayout(spec);
  const digest = checkpointDigest(manifest.format, layout.vectorBytes);
  const digested = digestedFiles(layout, digest);
  for (const { name, data, dataBytes } of digested) {
    // The digest wants whole vectors.
    if (dataBytes !== undefined && manifest.files[name]?.bytes !== data.start + dataBytes) throw damaged(folder, name);
    await verifyFile(folder, manifest, name, data);
    if (name === FILES.model && (await digest.soFar()) !== manifest.weightsDigest) throw damaged(folder, "its weights");
  }
  const others = [FILES.config, ...Object.keys(manifest.files)].filter((name) => !digested.some((known) => known.name === name));
  for (const name of new Set(others)) await verifyFile(folder, manifest, name);
  if ((await digest.soFar()) !== manifest.digest) throw damaged(folder, "its digest");
  return {
    folder,
    manifest,
    cursor: JSON.parse(await readFile(join(folder, FILES.cursor), "utf8")) as CheckpointCursor,
    states: await readStates(join(folder, FILES.lanes), spec, layout),
  };
}

/**
 * Compares a file with the manifest's record of it.
 * @throws SegueError CHECKPOINT_DAMAGED; errors of the file system
 */
export async function verifyFile(folder: string, manifest: Manifest, name: string, data?: DataSink): Promise<void> {
  const expected = manifest.files[name];
  const whole = createHash("sha256");
  const bytes = await hashFile(join(folder, name), whole, data).catch((cause: NodeJS.ErrnoException) => {
    throw cause.code === "ENOENT" ? damaged(folder, name, "is missing", cause) : cause;
  });
  if (expected?.bytes !== bytes || expected.sha256 !== whole.digest("hex")) throw damaged(folder, name);
}

/** The snapshot f32 [vectors, P] of a checkpoint, streamed out of its two files. */
export function modelSnapshot(folder: string, spec: JobSpec): FileRangesTensor {
  const { vectorBytes, vectors, parameters, modelHeader, optimizerHeader } = checkpointLayout(spec);
  return {
    dtype: "f32",
    shape: [vectors, parameters],
    ranges: [
      { path: join(folder, FILES.model), offset: modelHeader.byteLength, length: vectorBytes },
      { path: join(folder, FILES.optimizer), offset: optimizerHeader.byteLength, length: (vectors - 1) * vectorBytes },
    ],
  };
}

/** First and second moments f32 [2, P] of a checkpoint. */
export function momentsSnapshot(folder: string, spec: JobSpec): FileRangesTensor {
  const { vectorBytes, parameters, optimizerHeader } = checkpointLayout(spec);
  const range = { path: join(folder, FILES.optimizer), offset: optimizerHeader.byteLength, length: 2 * vectorBytes };
  return { dtype: "f32", shape: [2, parameters], ranges: [range] };
}

interface DigestedFile {
  readonly name: string;
  readonly data: DataSink;
  /** Absent: any number. */
  readonly dataBytes?: number;
}

/** The files that make up the digest, in order. */
function digestedFiles(layout: CheckpointLayout, { vectors: take, rest }: CheckpointDigest): DigestedFile[] {
  const { modelHeader, optimizerHeader, lanesHeader, vectorBytes, vectors, laneBytes } = layout;
  return [
    { name: FILES.model, data: { start: modelHeader.byteLength, take }, dataBytes: vectorBytes },
    { name: FILES.optimizer, data: { start: optimizerHeader.byteLength, take }, dataBytes: (vectors - 1) * vectorBytes },
    { name: FILES.lanes, data: { start: lanesHeader.byteLength, take: rest }, dataBytes: laneBytes },
    { name: FILES.cursor, data: { start: 0, take: rest } },
  ];
}

async function readStates(path: string, spec: JobSpec, layout: CheckpointLayout): Promise<Uint8Array[]> {
  const shardBytes = layout.laneBytes / spec.batch.shards;
  const file = await open(path);
  try {
    const states: Uint8Array[] = [];
    for (let shard = 0; shard < spec.batch.shards; shard++) {
      const bytes = new Uint8Array(shardBytes);
      for (let filled = 0; filled < shardBytes;) {
        const at = layout.lanesHeader.byteLength + shard * shardBytes + filled;
        const { bytesRead } = await file.read(bytes, filled, shardBytes - filled, at);
        if (bytesRead === 0) throw damaged(path, "its length");
        filled += bytesRead;
      }
      states.push(bytes);
    }
    return states;
  } finally {
    await file.close();
  }
}

function damaged(folder: string, what: string, how = "does not match the manifest", cause?: unknown): SegueError {
  return new SegueError("CHECKPOINT_DAMAGED", `${folder}: ${what} ${how}.`, { status: "DATA_LOSS", cause });
}
