import { createHash, randomUUID } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, rename, rm, rmdir } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { syncFile, syncFolder } from "../store/atomic-file.js";
import { hashFile } from "./hashed-file.js";
import { uploadDamaged, type ObjectRecord, type ObjectStore } from "./object-store.js";

const UNFINISHED = ".unfinished";

/** Objects as files of a folder, such as a network volume. */
export class FolderObjects implements ObjectStore {
  readonly url: string;

  constructor(root: string) {
    this.url = root;
  }

  async list(): Promise<string[]> {
    await mkdir(this.url, { recursive: true });
    const entries = await readdir(this.url, { recursive: true, withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile() && !entry.name.endsWith(UNFINISHED));
    return files.map((entry) => relative(this.url, join(entry.parentPath, entry.name)).split(sep).join("/"));
  }

  async read(key: string): Promise<Uint8Array | undefined> {
    return readFile(join(this.url, key)).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
  }

  download(key: string, path: string): Promise<void> {
    return copyFile(join(this.url, key), path);
  }

  async upload(key: string, path: string, record: ObjectRecord, signal: AbortSignal): Promise<void> {
    const target = join(this.url, key);
    const folder = dirname(target);
    await mkdir(folder, { recursive: true });
    const unfinished = `${target}.${randomUUID()}${UNFINISHED}`;
    try {
      await copyFile(path, unfinished);
      signal.throwIfAborted();
      const hash = createHash("sha256");
      const bytes = await hashFile(unfinished, hash);
      if (bytes !== record.bytes || hash.digest("hex") !== record.sha256) throw uploadDamaged(path);
      await syncFile(unfinished);
      await rename(unfinished, target);
    } catch (error) {
      await rm(unfinished, { force: true });
      throw error;
    }
    await syncFolder(folder);
  }

  async remove(keys: readonly string[]): Promise<void> {
    for (const key of keys) await rm(join(this.url, key), { force: true });
    for (const folder of new Set(keys.map((key) => dirname(join(this.url, key))))) await rmdir(folder).catch(() => undefined);
  }

  async removeUnfinished(): Promise<void> {
    const names = await readdir(this.url, { recursive: true }).catch(() => []);
    for (const name of names) if (name.endsWith(UNFINISHED)) await rm(join(this.url, name), { force: true });
  }

  close(): void {
    // Nothing is held open.
  }
}
