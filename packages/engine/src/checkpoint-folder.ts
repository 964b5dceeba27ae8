import { mkdir, open, readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import {
  configFromHuggingFace,
  configToHuggingFace,
  decodeSafetensors,
  flattenParameters,
  parameterLayout,
  safetensorsHeader,
  SegueError,
  type ModelSpec,
  type SafetensorsTensor,
} from "@segue/core";

export interface ModelFolder {
  readonly model: ModelSpec;
  /** Flat, in the order of the layout. */
  readonly parameters: Float32Array;
}

/** Reads and writes are cut into pieces: one call of Node's moves at most 2 GiB. */
const PIECE_BYTES = 1 << 30;

/**
 * Reads `config.json` and the tensors of a Mamba-2 folder in Hugging Face's layout or that of state-spaces/mamba. The tensors are in
 * `model.safetensors`, or in the files that `model.safetensors.index.json` names.
 * @throws SegueError MODEL_UNSUPPORTED, SAFETENSORS_INVALID or CHECKPOINT_MISMATCH; the system's error for a file that is not there
 */
export async function readModelFolder(folder: string): Promise<ModelFolder> {
  const model = configFromHuggingFace(parseConfig(await readFile(join(folder, "config.json"), "utf8")));
  const tensors = new Map<string, SafetensorsTensor>();
  for (const file of await tensorFiles(folder)) {
    for (const [name, tensor] of await readSafetensorsFile(join(folder, file))) tensors.set(name, tensor);
  }
  return { model, parameters: flattenParameters(model, tensors) };
}

/** @throws SegueError SAFETENSORS_INVALID; the system's error for a file that is not there */
export async function readSafetensorsFile(path: string): Promise<Map<string, SafetensorsTensor>> {
  return decodeSafetensors(await readBytes(path));
}

/** Writes the folder that `Mamba2ForCausalLM.from_pretrained` reads; makes it if need be, overwrites what it holds. */
export async function writeModelFolder(folder: string, { model, parameters }: ModelFolder, eosId: number): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "config.json"), `${JSON.stringify(configToHuggingFace(model, eosId), null, 2)}\n`);
  const entries = parameterLayout(model).entries.map(({ name, shape }) => ({ name, dtype: "F32" as const, shape }));
  const file = await open(join(folder, "model.safetensors"), "w");
  try {
    // The flat vector holds the tensors in the header's order, so its bytes are the file's data.
    await file.writeFile(safetensorsHeader(entries, { format: "pt" }));
    const bytes = new Uint8Array(parameters.buffer, parameters.byteOffset, parameters.byteLength);
    for (let start = 0; start < bytes.length; start += PIECE_BYTES)
      await file.writeFile(bytes.subarray(start, start + PIECE_BYTES));
  } finally {
    await file.close();
  }
}

/** transformers cuts large models into several files and writes an index of them instead of `model.safetensors`. */
async function tensorFiles(folder: string): Promise<string[]> {
  const whole = ["model.safetensors"];
  let index: unknown;
  try {
    index = JSON.parse(await readFile(join(folder, "model.safetensors.index.json"), "utf8"));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return whole;
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
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new SegueError("MODEL_UNSUPPORTED", "config.json is not JSON", { cause });
  }
}

async function readBytes(path: string): Promise<Uint8Array> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    const bytes = new Uint8Array(size);
    let read = 0;
    while (read < size) {
      const { bytesRead } = await file.read(bytes, read, Math.min(PIECE_BYTES, size - read), read);
      if (bytesRead === 0) throw new SegueError("SAFETENSORS_INVALID", `${path} shrank while it was read`, { status: "DATA_LOSS" });
      read += bytesRead;
    }
    return bytes;
  } finally {
    await file.close();
  }
}
