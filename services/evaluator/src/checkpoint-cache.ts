import { randomUUID } from "node:crypto";
import { mkdir, readdir, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { SegueError } from "@segue/core";
import { pullFile, pullTensor, type Client, type FileRecord, type Tensors } from "@segue/protocol";

export interface CheckpointId {
  readonly jobId: string;
  readonly step: number;
  readonly digest: string;
}

interface Manifest {
  readonly digest: string;
  readonly files: Readonly<Record<string, FileRecord | undefined>>;
}

/** Files of a checkpoint that an evaluation needs; the last only exists for Hugging Face tokenizers. */
const FILES = ["config.json", "model.safetensors", "tokenizer.json"] as const;
const OPTIONAL: readonly string[] = ["tokenizer.json"];

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
   * grpc ServiceError when the coordinator does not answer, no longer has it, or sends something else than its manifest says
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
    const scratch = `${folder}.${randomUUID()}.partial`;
    await mkdir(scratch, { recursive: true });
    try {
      for (const file of FILES) {
        const record = manifest.files[file];
        if (record) await pullFile(this.#tensors, refOf(file), join(scratch, file), record, signal);
        else if (!OPTIONAL.includes(file)) {
          const message = `${file} is missing in the manifest of step ${step} of ${jobId}.`;
          throw new SegueError("CHECKPOINT_DAMAGED", message, { status: "DATA_LOSS" });
        }
      }
      await writeFile(join(scratch, "manifest.json"), data);
      await rename(scratch, folder);
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
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
