import { access, open, readFile, type FileHandle } from "node:fs/promises";
import { basename, join } from "node:path";
import {
  configFromHuggingFace,
  decodeSafetensors,
  pagedFloats,
  parameterLayout,
  parsePythonJson,
  placedParameters,
  readSafetensorsHeader,
  safetensorsHeaderLength,
  SegueError,
  setFloats,
  tensorToFloat32,
  type ModelSpec,
  type PagedFloats,
  type SafetensorsRange,
  type SafetensorsTensor,
} from "@segue/core";
import type { Engine } from "./engine.js";

export interface ModelFolder {
  readonly model: ModelSpec;
  /** Flat, in the order of the layout. */
  readonly parameters: PagedFloats;
}

/** A tensor in a file of a folder. */
interface StoredTensor extends SafetensorsRange {
  readonly path: string;
  /** Where the file's data begin. */
  readonly dataStart: number;
}

/** Read and converted at a time: bounds memory, whatever the size of a tensor. A multiple of every element's size. */
const PIECE_BYTES = 2 ** 25;

/**
 * Reads `config.json` and the tensors of a Mamba-2 folder in Hugging Face's layout or that of state-spaces/mamba. The tensors are in
 * `model.safetensors`, or in the files that `model.safetensors.index.json` names. Holds the parameters and a piece of one tensor.
 * @throws SegueError MODEL_UNSUPPORTED, SAFETENSORS_INVALID or CHECKPOINT_MISMATCH; the system's error for a file that is not there
 */
export async function readModelFolder(folder: string, pageFloats?: number): Promise<ModelFolder> {
  const model = await readModelConfig(folder);
  const parameters = pagedFloats(parameterLayout(model).size, pageFloats);
  await readParameters(folder, model, (values, offset) => setFloats(parameters, values, offset));
  return { model, parameters };
}

/** The sizes in a folder's `config.json`. @throws SegueError MODEL_UNSUPPORTED; the system's error for a file that is not there */
export async function readModelConfig(folder: string): Promise<ModelSpec> {
  return configFromHuggingFace(parseConfig(await readFile(join(folder, "config.json"), "utf8")));
}

/** Gives an engine the parameters of a folder, without a copy of them all. Throws as {@link readModelFolder}. */
export async function loadParameters(engine: Engine, folder: string): Promise<void> {
  await readParameters(folder, engine.model, (values, offset) => engine.writeParameters(values, offset));
}

/** @throws SegueError SAFETENSORS_INVALID; the system's error for a file that is not there */
export async function readSafetensorsFile(path: string): Promise<Map<string, SafetensorsTensor>> {
  const file = await open(path);
  try {
    return decodeSafetensors(await readBytes(file, path, 0, (await file.stat()).size));
  } finally {
    await file.close();
  }
}

/** Floats of the flat vector from number `offset` on. */
type WriteFloats = (values: Float32Array, offset: number) => void;

async function readParameters(folder: string, model: ModelSpec, write: WriteFloats): Promise<void> {
  const files = await tensorFiles(folder);
  const tensors = (await Promise.all(files.map((file) => storedTensors(join(folder, file))))).flat();
  for (const { tensor, offset } of placedParameters(model, tensors)) await readTensor(tensor, offset, write);
}

async function readTensor(
  { path, dataStart, begin, end, ...entry }: StoredTensor,
  offset: number,
  write: WriteFloats,
): Promise<void> {
  const file = await open(path);
  try {
    let written = offset;
    for (let at = begin; at < end; at += PIECE_BYTES) {
      const data = await readBytes(file, path, dataStart + at, Math.min(PIECE_BYTES, end - at));
      const values = tensorToFloat32({ ...entry, data });
      write(values, written);
      written += values.length;
    }
  } finally {
    await file.close();
  }
}

async function storedTensors(path: string): Promise<StoredTensor[]> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    const headerBytes = safetensorsHeaderLength(await readBytes(file, path, 0, Math.min(8, size)));
    const dataStart = 8 + headerBytes;
    if (size < dataStart) {
      const claim = `${path}: the header claims ${headerBytes} bytes, the file has ${size - 8}`;
      throw new SegueError("SAFETENSORS_INVALID", claim, { status: "DATA_LOSS" });
    }
    const ranges = readSafetensorsHeader(await readBytes(file, path, 8, headerBytes), size - dataStart);
    return ranges.map((range) => ({ ...range, path, dataStart }));
  } finally {
    await file.close();
  }
}

/** transformers cuts large models into several files and writes an index of them instead of `model.safetensors`. */
async function tensorFiles(folder: string): Promise<string[]> {
  const whole = "model.safetensors";
  const isThere = access(join(folder, whole)).then(
    () => true,
    () => false,
  );
  if (await isThere) return [whole];
  let index: unknown;
  try {
    index = JSON.parse(await readFile(join(folder, "model.safetensors.index.json"), "utf8"));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return [whole];
    throw cause instanceof SyntaxError ? invalidIndex(cause) : cause;
  }
  const files = typeof index === "object" && index !== null && "weight_map" in index ? Object.values(index.weight_map ?? {}) : [];
  // The names come from outside: nothing but files of this folder.
  if (files.length === 0 || !files.every((file) => typeof file === "string" && basename(file) === file)) throw invalidIndex();
  return [...new Set(files as string[])];
}

function invalidIndex(cause?: unknown): SegueError {
  const message = "model.safetensors.index.json has no weight_map from tensors to files of its folder";
  return new SegueError("SAFETENSORS_INVALID", message, { status: "DATA_LOSS", cause });
}

function parseConfig(text: string): unknown {
  try {
    return parsePythonJson(text);
  } catch (cause) {
    throw new SegueError("MODEL_UNSUPPORTED", "config.json is not JSON", { cause });
  }
}

async function readBytes(file: FileHandle, path: string, start: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let read = 0; read < length;) {
    const { bytesRead } = await file.read(bytes, read, Math.min(PIECE_BYTES, length - read), start + read);
    if (bytesRead === 0) throw new SegueError("SAFETENSORS_INVALID", `${path} shrank while it was read`, { status: "DATA_LOSS" });
    read += bytesRead;
  }
  return bytes;
}
