import { createHash } from "node:crypto";
import { mkdir, open, readdir, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { SegueError } from "@segue/core";
import { pullTensor, type Client, type Tensors } from "@segue/protocol";

export interface CheckpointId {
  readonly jobId: string;
  readonly step: number;
  readonly digest: string;
}

interface Manifest {
  readonly digest: string;
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string } | undefined>>;
}

/** Files of a checkpoint that an evaluation needs; the last only exists for Hugging Face tokenizers. */
const FILES = ["config.json", "model.safetensors", "tokenizer.json"] as const;
const OPTIONAL: readonly string[] = ["tokenizer.json"];
/** Pulled and written at a time, which bounds memory. */
const RANGE_BYTES = 32 * 2 ** 20;

/** Local copies of checkpoints, pulled from the coordinator once and checked against their manifest; the least recently used go. */
export class CheckpointCache {
  readonly #dir: string;
  readonly #tensors: Client<typeof Tensors>;
  readonly #kept: number;

  constructor(dir: string, tensors: Client<typeof Tensors>, kept = 4) {
    this.#dir = dir;
    this.#tensors = tensors;
    this.#kept = kept;
  }

  /**
   * The folder with the checkpoint's files.
   * @throws SegueError CHECKPOINT_CHANGED when the coordinator's checkpoint of that step is another one by now, CHECKPOINT_DAMAGED; a
   * grpc ServiceError when the coordinator does not answer or no longer has it
   */
  async folderOf(checkpoint: CheckpointId, signal: AbortSignal): Promise<string> {
    const folder = join(this.#dir, checkpoint.digest);
    if (!(await exists(folder))) await this.#pull(checkpoint, folder, signal);
    const now = new Date();
    await utimes(folder, now, now);
    await this.#evict();
    return folder;
  }

  async #pull({ jobId, step, digest }: CheckpointId, folder: string, signal: AbortSignal): Promise<void> {
    const refOf = (file: string): string => `job/${jobId}/checkpoint/${step}/${file}`;
    const { data } = await pullTensor(this.#tensors, refOf("manifest.json"), { signal });
    const manifest = JSON.parse(Buffer.from(data).toString("utf8")) as Manifest;
    if (manifest.digest !== digest) {
      throw new SegueError("CHECKPOINT_CHANGED", `Step ${step} of ${jobId} now has digest ${manifest.digest}, not ${digest}.`, {
        status: "FAILED_PRECONDITION",
      });
    }
    const scratch = `${folder}.${process.pid}.partial`;
    await mkdir(scratch, { recursive: true });
    try {
      for (const file of FILES) {
        const record = manifest.files[file];
        if (record) await this.#pullFile(refOf(file), join(scratch, file), record, signal);
        else if (!OPTIONAL.includes(file)) throw damaged(`${file} is missing in the manifest of step ${step} of ${jobId}`);
      }
      await writeFile(join(scratch, "manifest.json"), data);
      await rename(scratch, folder);
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  }

  async #pullFile(ref: string, path: string, record: { bytes: number; sha256: string }, signal: AbortSignal): Promise<void> {
    const hash = createHash("sha256");
    const file = await open(path, "w");
    try {
      for (let offset = 0; offset < record.bytes; offset += RANGE_BYTES) {
        const length = Math.min(RANGE_BYTES, record.bytes - offset);
        const { data } = await pullTensor(this.#tensors, ref, { offset, length, signal });
        hash.update(data);
        await file.writeFile(data);
      }
    } finally {
      await file.close();
    }
    if (hash.digest("hex") !== record.sha256) throw damaged(`${ref} does not have the digest of the manifest`);
  }

  async #evict(): Promise<void> {
    const names = (await readdir(this.#dir)).filter((name) => !name.endsWith(".partial"));
    const aged = await Promise.all(names.map(async (name) => ({ name, usedAtMs: (await stat(join(this.#dir, name))).mtimeMs })));
    const oldest = aged.sort((a, b) => b.usedAtMs - a.usedAtMs).slice(this.#kept);
    for (const { name } of oldest) await rm(join(this.#dir, name), { recursive: true, force: true });
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

function damaged(message: string): SegueError {
  return new SegueError("CHECKPOINT_DAMAGED", `${message}.`, { status: "DATA_LOSS" });
}
