import { mkdir, open, readFile, rename, rm, writeFile, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import {
  configFromHuggingFace,
  configToHuggingFace,
  folderTexts,
  parsePythonJson,
  roundToBf16,
  safetensorsHeaderLength,
  SegueError,
  stretches,
  weightFiles,
  type ExportDtype,
  type ModelSpec,
} from "@segue/core";
import type { ModelFolder } from "./checkpoint-folder.js";

export interface ExportOptions {
  readonly dtype: ExportDtype;
  /** Bytes of data in one file of weights, at most. */
  readonly mostFileBytes: number;
}

/** Parameters [first, end) of the flat vector; the caller may change what it gets. */
type ReadFloats = (first: number, end: number) => Promise<Float32Array>;

/** Of the weights in memory at a time. */
const PIECE_FLOATS = 2 ** 21;

/**
 * Makes the folder that transformers loads of one with a checkpoint's `config.json`, `model.safetensors` and, unless the model reads bytes,
 * `tokenizer.json`. Weights pass through memory piece by piece.
 * @returns the names of the folder's files
 * @throws SegueError CHECKPOINT_DAMAGED, MODEL_UNSUPPORTED, SAFETENSORS_INVALID
 */
export async function exportFolder(folder: string, options: ExportOptions): Promise<string[]> {
  const { model, eosId } = await checkpointModel(folder);
  const tokenizer = await readFile(join(folder, "tokenizer.json"), "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  const texts = folderTexts(model, eosId, options.dtype, tokenizer === undefined ? undefined : (JSON.parse(tokenizer) as unknown));
  for (const [name, text] of texts) await writeFile(join(folder, name), text);
  const weights = await exportWeights(folder, model, options);
  return [...new Set([...texts.keys(), ...(tokenizer === undefined ? [] : ["tokenizer.json"]), ...weights])].sort();
}

/** Writes `config.json` and `model.safetensors` of a model; makes the folder if need be, overwrites what it holds. */
export async function writeModelFolder(folder: string, { model, parameters }: ModelFolder, eosId: number): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "config.json"), `${JSON.stringify(configToHuggingFace(model, eosId), null, 2)}\n`);
  await writeWeights(folder, model, { dtype: "f32", mostFileBytes: Infinity }, (first, end) => {
    const floats = new Float32Array(end - first);
    for (const { offset, floats: stretch } of stretches(parameters, first, end)) floats.set(stretch, offset - first);
    return Promise.resolve(floats);
  });
}

async function checkpointModel(folder: string): Promise<{ model: ModelSpec; eosId: number }> {
  const config = parsePythonJson(await readFile(join(folder, "config.json"), "utf8")) as { eos_token_id?: unknown } | null;
  const model = configFromHuggingFace(config);
  const eosId = config?.eos_token_id;
  if (typeof eosId === "number") return { model, eosId };
  throw new SegueError("CHECKPOINT_DAMAGED", "config.json of the checkpoint has no eos_token_id.", { status: "DATA_LOSS" });
}

async function exportWeights(folder: string, model: ModelSpec, options: ExportOptions): Promise<string[]> {
  const { files } = weightFiles(model, options.dtype, options.mostFileBytes);
  // A checkpoint has them like this.
  if (options.dtype === "f32" && files.length === 1) return files.map(({ name }) => name);
  const path = join(folder, ".weights");
  await rename(join(folder, "model.safetensors"), path);
  const file = await open(path);
  try {
    const prefix = new Uint8Array(8);
    await readFully(file, prefix, 0);
    const dataStart = 8 + safetensorsHeaderLength(prefix);
    return await writeWeights(folder, model, options, async (first, end) => {
      const floats = new Float32Array(end - first);
      await readFully(file, new Uint8Array(floats.buffer), dataStart + 4 * first);
      return floats;
    });
  } finally {
    await file.close();
    await rm(path);
  }
}

/** @returns the names of the files */
async function writeWeights(folder: string, model: ModelSpec, options: ExportOptions, read: ReadFloats): Promise<string[]> {
  const { files, index } = weightFiles(model, options.dtype, options.mostFileBytes);
  for (const { name, header, first, end } of files) {
    const file = await open(join(folder, name), "w");
    try {
      await file.writeFile(header);
      for (let at = first; at < end; at += PIECE_FLOATS) {
        await file.writeFile(encoded(await read(at, Math.min(end, at + PIECE_FLOATS)), options.dtype));
      }
      await file.sync();
    } finally {
      await file.close();
    }
  }
  const names = files.map(({ name }) => name);
  if (index === undefined) return names;
  await writeFile(join(folder, "model.safetensors.index.json"), index);
  return [...names, "model.safetensors.index.json"];
}

function encoded(floats: Float32Array, dtype: ExportDtype): Uint8Array {
  if (dtype === "f32") return new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
  const bits = new Uint16Array(floats.length);
  roundToBf16(floats, bits);
  return new Uint8Array(bits.buffer);
}

async function readFully(file: FileHandle, bytes: Uint8Array, from: number): Promise<void> {
  for (let read = 0; read < bytes.length;) {
    const { bytesRead } = await file.read(bytes, read, bytes.length - read, from + read);
    if (bytesRead === 0) throw new SegueError("SAFETENSORS_INVALID", "model.safetensors is cut short", { status: "DATA_LOSS" });
    read += bytesRead;
  }
}
