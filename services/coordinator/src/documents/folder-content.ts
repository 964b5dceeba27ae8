import { readdir, realpath, stat } from "node:fs/promises";
import { join } from "node:path";

export interface FolderFile {
  /** As it was come to; through links to folders, if there are any on the way. */
  readonly path: string;
  /** Without links; undefined: the name is a link itself. */
  readonly realPath: string | undefined;
}

/** What lies in a folder and all below it. */
export interface FolderContent {
  /** In order of their paths. */
  readonly files: readonly FolderFile[];
  /** Names that begin with a dot; nobody looks into such folders. */
  readonly hidden: readonly string[];
  /** Links to folders that are read under another path. */
  readonly links: readonly string[];
}

/**
 * Walks through a folder, with links followed. Every folder is read once, under its own path when it has one here, so that loops end and
 * the result does not depend on where links to it lie.
 * @throws errors of the file system, such as those of a folder that may not be read
 */
export async function folderContent(root: string): Promise<FolderContent> {
  const files: FolderFile[] = [];
  const hidden: string[] = [];
  const links: string[] = [];
  const seen = new Set<string>();
  // Links to folders wait until all folders proper are read.
  const waiting = [root];
  for (let folder = waiting.shift(); folder !== undefined; folder = waiting.shift()) {
    const real = await realpath(folder);
    if (seen.has(real)) links.push(folder);
    else await read(folder, real);
  }
  return { files: files.sort(({ path: a }, { path: b }) => (a < b ? -1 : 1)), hidden, links };

  async function read(folder: string, realFolder: string): Promise<void> {
    seen.add(realFolder);
    const entries = await readdir(folder, { withFileTypes: true });
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const [path, realPath] = [join(folder, entry.name), join(realFolder, entry.name)];
      if (entry.name.startsWith(".")) hidden.push(path);
      else if (entry.isDirectory()) await read(path, realPath);
      else if (!entry.isSymbolicLink()) files.push({ path, realPath });
      else if (await leadsToFolder(path)) waiting.push(path);
      else files.push({ path, realPath: undefined });
    }
  }
}

async function leadsToFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (target) => target.isDirectory(),
    () => false,
  );
}
