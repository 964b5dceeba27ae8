import { createHash, randomUUID } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, rename, rm, rmdir, stat } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { syncFile, syncFolder } from "../store/atomic-file.js";
import { hashFile } from "./hashed-file.js";
import { uploadDamaged, type ObjectRecord, type ObjectStore, type StoredObject } from "./object-store.js";

const UNFINISHED = ".unfinished";

/** Objects as files of a folder, such as a network volume. */
export class FolderObjects implements ObjectStore {
  readonly url: string;

  constructor(root: string) {
    this.url = root;
  }

  async list(): Promise<StoredObject[]> {
    await mkdir(this.url, { recursive: true });
    const entries = await readdir(this.url, { recursive: true, withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile() && !entry.name.endsWith(UNFINISHED));
    const objects: StoredObject[] = [];
    for (const { parentPath, name } of files) {
      const path = join(parentPath, name);
      const size = await stat(path).then(({ size }) => size, absent);
      if (size !== undefined) objects.push({ key: relative(this.url, path).split(sep).join("/"), bytes: size });
    }
    return objects;
  }

  async read(key: string): Promise<Uint8Array | undefined> {
    return readFile(join(this.url, key)).catch(absent);
  }

  async download(key: string, path: string): Promise<boolean> {
    const copied = await copyFile(join(this.url, key), path).then(() => true, absent);
    return copied ?? false;
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

/** @returns undefined for a file that is not there */
function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code === "ENOENT") return undefined;
  throw error;
}
