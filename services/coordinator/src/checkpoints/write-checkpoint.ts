import { randomUUID } from "node:crypto";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { configToHuggingFace, SegueError, type JobSpec } from "@segue/core";
import { faultPoint } from "@segue/runtime";
import { syncFolder } from "../store/atomic-file.js";
import { checkpointDigest } from "./checkpoint-digest.js";
import { HashedFile } from "./hashed-file.js";
import { checkpointLayout } from "./layout.js";
import { canonicalJson, checkpointFolderName, FILES, MANIFEST, type CheckpointCursor, type Manifest } from "./manifest.js";

export interface CheckpointInput {
  readonly jobId: string;
  readonly spec: JobSpec;
  readonly eosId: number;
  /** So that a checkpoint can be evaluated and exported without the file the job was submitted with. */
  readonly tokenizerJson?: Uint8Array | undefined;
  readonly cursor: CheckpointCursor;
  /** Lane states of all shards in order, each f32 [lanesPerShard, laneStateFloats]. */
  readonly states: readonly Uint8Array[];
  /** Of the weights, as the members reported it. */
  readonly weightsDigest: string;
  /** Bytes of the snapshot f32 [vectors, P]. */
  readonly readModel: (offset: number, length: number) => Promise<Uint8Array>;
}

/** Of the manifests written, and so the kind of their digests. */
const FORMAT = 2;

/** Bytes of the snapshot in memory at a time, twice: one slice is written while the next is pulled. */
const SLICE_BYTES = 8 * 2 ** 20;

/**
 * Writes a checkpoint with constant memory, atomically: into a temporary folder, flushed, the manifest last, then renamed.
 * An existing checkpoint of the step is replaced.
 * @param parent the job's `checkpoints` folder
 * @throws SegueError CHECKPOINT_WEIGHTS_MISMATCH when the pulled weights are not those that were reported
 */
export async function writeCheckpoint(parent: string, input: CheckpointInput): Promise<{ folder: string; manifest: Manifest }> {
  const name = checkpointFolderName(input.cursor.step);
  const folder = join(parent, name);
  const temporary = join(parent, `.${name}.${randomUUID()}`);
  await mkdir(temporary, { recursive: true });
  try {
    const manifest = await writeFiles(temporary, input);
    await syncFolder(temporary);
    await rm(folder, { recursive: true, force: true });
    await rename(temporary, folder);
    await syncFolder(parent);
    return { folder, manifest };
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  }
}

async function writeFiles(folder: string, input: CheckpointInput): Promise<Manifest> {
  const { spec, cursor, readModel } = input;
  const { vectorBytes, vectors, modelHeader, optimizerHeader, lanesHeader } = checkpointLayout(spec);
  const digest = checkpointDigest(FORMAT, vectorBytes);
  const files: Record<string, { bytes: number; sha256: string }> = {};
  const write = async (name: string, fill: (file: HashedFile) => Promise<void>): Promise<void> => {
    const file = await HashedFile.create(join(folder, name));
    try {
      await fill(file);
    } catch (error) {
      await file.abandon();
      throw error;
    }
    files[name] = await file.finish();
  };
  const stream = async (file: HashedFile, begin: number, end: number): Promise<void> => {
    for await (const slice of slices(readModel, begin, end)) await Promise.all([file.write(slice), digest.vectors(slice)]);
  };

  await write(FILES.config, (file) => file.write(jsonBytes(configToHuggingFace(spec.model, input.eosId), 2)));
  const { tokenizerJson } = input;
  if (tokenizerJson) await write(FILES.tokenizer, (file) => file.write(tokenizerJson));
  await write(FILES.model, async (file) => {
    await file.write(modelHeader);
    await stream(file, 0, vectorBytes);
  });
  // The weights come first in the digest, so its state here is their digest.
  checkWeights(await digest.soFar(), input);
  await write(FILES.optimizer, async (file) => {
    await file.write(optimizerHeader);
    await stream(file, vectorBytes, vectors * vectorBytes);
  });
  await write(FILES.lanes, async (file) => {
    await file.write(lanesHeader);
    for (const states of input.states) await Promise.all([file.write(states), digest.rest(states)]);
  });
  const cursorJson = new TextEncoder().encode(canonicalJson(cursor));
  await write(FILES.cursor, (file) => file.write(cursorJson));
  await digest.rest(cursorJson);

  const manifest: Manifest = {
    format: FORMAT,
    jobId: input.jobId,
    step: cursor.step,
    digest: await digest.soFar(),
    weightsDigest: input.weightsDigest,
    createdAtMs: Date.now(),
    sizeBytes: Object.values(files).reduce((sum, { bytes }) => sum + bytes, 0),
    tokens: cursor.tokens,
    loss: cursor.loss,
    spec,
    files: { ...files },
  };
  await faultPoint("coordinator.checkpointFilesWritten", cursor.step);
  await write(MANIFEST, (file) => file.write(jsonBytes(manifest, 2)));
  return manifest;
}

function checkWeights(pulled: string, { weightsDigest, cursor }: CheckpointInput): void {
  if (pulled === weightsDigest) return;
  const message = `The weights pulled for step ${cursor.step} have digest ${pulled}, the members reported ${weightsDigest}.`;
  throw new SegueError("CHECKPOINT_WEIGHTS_MISMATCH", message, { status: "DATA_LOSS" });
}

async function* slices(
  read: CheckpointInput["readModel"],
  begin: number,
  end: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  const start = (at: number): Promise<Uint8Array> => {
    const slice = read(at, Math.min(SLICE_BYTES, end - at));
    // It is awaited one slice later; a failure until then must not count as unhandled.
    slice.catch(() => undefined);
    return slice;
  };
  let next = begin < end ? start(begin) : undefined;
  for (let at = begin; next; at += SLICE_BYTES) {
    const slice = await next;
    next = at + SLICE_BYTES < end ? start(at + SLICE_BYTES) : undefined;
    yield slice;
  }
}

function jsonBytes(value: unknown, indent: number): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, indent)}\n`);
}
