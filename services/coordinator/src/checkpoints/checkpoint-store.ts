import { readdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import type { JobSpec } from "@segue/core";
import type { Logger } from "@segue/runtime";
import { loadCheckpoint, type LoadedCheckpoint } from "./load-checkpoint.js";
import { checkpointFolderName, FILES, MANIFEST, readManifest, type Manifest } from "./manifest.js";
import { writeCheckpoint, type CheckpointInput } from "./write-checkpoint.js";

export interface StoredCheckpoint {
  readonly folder: string;
  readonly manifest: Manifest;
}

/** The checkpoints of one job on disk. */
export class CheckpointStore {
  readonly #parent: string;
  readonly #logger: Logger;

  /** @param jobFolder `<store>/jobs/<id>` */
  constructor(jobFolder: string, logger: Logger) {
    this.#parent = join(jobFolder, "checkpoints");
    this.#logger = logger;
  }

  folder(step: number): string {
    return join(this.#parent, checkpointFolderName(step));
  }

  /** Newest first, by their manifests; files are not verified. */
  async list(): Promise<StoredCheckpoint[]> {
    const found: StoredCheckpoint[] = [];
    for (const name of await this.#folders()) {
      const folder = join(this.#parent, name);
      const manifest = await readManifest(folder).catch(() => undefined);
      if (manifest?.format === 1) found.push({ folder, manifest });
    }
    return found.sort((a, b) => b.manifest.step - a.manifest.step);
  }

  /** The newest checkpoint that is whole; damaged ones are passed over with a warning and stay where they are. */
  async loadNewest(spec: JobSpec): Promise<LoadedCheckpoint | undefined> {
    const folders = (await this.#folders()).sort().reverse();
    for (const name of folders) {
      const folder = join(this.#parent, name);
      try {
        return await loadCheckpoint(folder, spec);
      } catch (error) {
        this.#logger.warn({ event: "checkpointDamaged", folder, err: error }, "a damaged checkpoint is passed over");
      }
    }
    return undefined;
  }

  write(input: CheckpointInput): Promise<StoredCheckpoint> {
    return writeCheckpoint(this.#parent, input);
  }

  /** Deletes all but the newest `keepLast` checkpoints and those that `isNeeded`. @returns the deleted steps */
  async retain(keepLast: number, isNeeded: (step: number) => Promise<boolean>): Promise<number[]> {
    const deleted: number[] = [];
    for (const { folder, manifest } of (await this.list()).slice(Math.max(1, keepLast))) {
      if (await isNeeded(manifest.step)) continue;
      // Without its manifest it no longer counts, so an interrupted deletion leaves no half checkpoint behind.
      await rm(join(folder, MANIFEST), { force: true });
      await rm(folder, { recursive: true, force: true });
      deleted.push(manifest.step);
    }
    return deleted;
  }

  /** Removes what an interrupted writer left behind. */
  async removeTemporary(): Promise<void> {
    for (const name of await readdir(this.#parent).catch(() => [])) {
      if (name.startsWith(".step-")) await rm(join(this.#parent, name), { recursive: true, force: true });
    }
  }

  async #folders(): Promise<string[]> {
    const names = await readdir(this.#parent).catch(() => []);
    return names.filter((name) => /^step-\d{8,}$/.test(name));
  }
}

/** Whether a name is one of a checkpoint's files, and so may be served. */
export function isCheckpointFile(name: string): boolean {
  return basename(name) === name && (name === MANIFEST || Object.values<string>(FILES).includes(name));
}
