import { realpath, stat } from "node:fs/promises";
import { resolve } from "node:path";
import type { Violation } from "@segue/core";
import { glob, isDynamicPattern } from "tinyglobby";
import { folderContent, type FolderFile } from "./folder-content.js";
import { LeftOut } from "./left-out.js";

export interface FoundFile {
  /** Absolute, as it was named or come to. */
  readonly path: string;
  readonly kind: "txt" | "jsonl";
  readonly compressed: boolean;
  readonly bytes: number;
  readonly modifiedMs: number;
  /** The setting that named it, for messages. */
  readonly field: string;
}

export interface FoundFiles {
  readonly files: readonly FoundFile[];
  readonly violations: Violation[];
  /** What is left out, in sentences for people. */
  readonly leftOut: string[];
}

const KINDS = ".txt, .jsonl, .txt.gz or .jsonl.gz";
const KIND = /\.(txt|jsonl)(\.gz)?$/i;

/**
 * The files that `data.paths` names: files as they are, folders with all documents below them, globs; endings in any case. In the order of
 * the paths and within one path in the order of their names. A file that links give several names is taken once, under the first of them;
 * its name says its kind, not that of what it leads to. Hard links are files of their own, since a copy of the folder makes them so.
 */
export async function findFiles(paths: readonly string[], baseDir: string): Promise<FoundFiles> {
  const files = new Map<string, FoundFile>();
  const violations: Violation[] = [];
  const leftOut = new LeftOut(baseDir);
  const inodes = new Set<string>();
  for (const [index, given] of paths.entries()) {
    const field = `data.paths[${index}]`;
    const refuse = (description: string): void => void violations.push({ field, description });
    try {
      for (const { path, realPath } of await expand(given, baseDir, refuse, leftOut)) {
        const kind = KIND.exec(path);
        if (!kind) {
          refuse(`${path} is not a ${KINDS} file`);
          continue;
        }
        const { size, mtimeMs, dev, ino, nlink } = await stat(path);
        const real = realPath ?? (await realpath(path));
        const inode = `${dev} ${ino}`;
        if (size === 0) refuse(`${path} is empty`);
        else if (files.has(real)) leftOut.again(path);
        else {
          const format = kind[1]?.toLowerCase() === "txt" ? "txt" : "jsonl";
          files.set(real, { path, kind: format, compressed: kind[2] !== undefined, bytes: size, modifiedMs: mtimeMs, field });
          if (nlink > 1 && inodes.has(inode)) leftOut.hardLink(path);
          inodes.add(inode);
        }
      }
    } catch (error) {
      refuse(`${given} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return { files: [...files.values()], violations, leftOut: leftOut.sentences(KINDS) };
}

async function expand(
  given: string,
  baseDir: string,
  refuse: (description: string) => void,
  leftOut: LeftOut,
): Promise<FolderFile[]> {
  const path = resolve(baseDir, given);
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw error;
  });
  if (found?.isFile()) return [named(path)];
  if (found?.isDirectory()) return documentsBelow(path, refuse, leftOut);
  if (found) {
    refuse(`${path} is neither a file nor a directory`);
    return [];
  }
  const options = { absolute: true, onlyFiles: true, expandDirectories: false, cwd: baseDir };
  const matches = isDynamicPattern(given) ? await glob(given, options) : undefined;
  if (!matches) refuse(`${path} does not exist`);
  else if (matches.length === 0) refuse(`${given} matches no file in ${baseDir}`);
  return (matches ?? []).sort().map(named);
}

async function documentsBelow(folder: string, refuse: (description: string) => void, leftOut: LeftOut): Promise<FolderFile[]> {
  const { files, hidden, links } = await folderContent(folder);
  const documents = files.filter(({ path }) => KIND.test(path));
  for (const { path } of files) if (!KIND.test(path)) leftOut.otherKind(path);
  leftOut.hidden(hidden);
  leftOut.again(...links);
  if (documents.length === 0) refuse(`${folder} holds no ${KINDS} file`);
  return documents;
}

function named(path: string): FolderFile {
  return { path, realPath: undefined };
}
