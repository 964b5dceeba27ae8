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
  /** Changes whenever somebody writes to the file or replaces it. */
  readonly version: string;
  /** The setting that named it, for messages. */
  readonly field: string;
}

export interface FoundFiles {
  readonly files: readonly FoundFile[];
  readonly violations: Violation[];
  /** What is left out, in sentences for people. */
  readonly leftOut: string[];
}

export type FilesRule = "now" | "before";

const KINDS = ".txt, .jsonl, .txt.gz or .jsonl.gz";
const FILES_ONLY = { absolute: true, onlyFiles: true, expandDirectories: false };
const KIND = /\.(txt|jsonl)(\.gz)?$/i;

/**
 * The files that `data.paths` names: files as they are, folders with all documents below them, globs; endings in any case. In the order of
 * the paths and within one path in the order of their names. A file that links give several names is taken once, under the first of them;
 * its name says its kind, not that of what it leads to. Hard links are files of their own, since a copy of the folder makes them so.
 * @param rule before: as it was when fingerprints had version 1, and so for jobs of that time: of folders only endings in small letters, and
 *   a file as often as it has names
 */
export async function findFiles(paths: readonly string[], baseDir: string, rule: FilesRule = "now"): Promise<FoundFiles> {
  const files = new Map<string, FoundFile>();
  const violations: Violation[] = [];
  const leftOut = new LeftOut(baseDir);
  const inodes = new Set<string>();
  for (const [index, given] of paths.entries()) {
    const field = `data.paths[${index}]`;
    const refuse = (description: string): void => void violations.push({ field, description });
    try {
      for (const { path, realPath } of await expand(given, { baseDir, rule, refuse, leftOut })) {
        const kind = KIND.exec(path);
        if (!kind) {
          refuse(`${path} is not a ${KINDS} file`);
          continue;
        }
        const { size, mtimeNs, ctimeNs, dev, ino, nlink } = await stat(path, { bigint: true });
        const real = rule === "before" ? path : (realPath ?? (await realpath(path)));
        const inode = `${dev} ${ino}`;
        if (size === 0n) refuse(`${path} is empty`);
        else if (files.has(real)) leftOut.again(path);
        else {
          const format = kind[1]?.toLowerCase() === "txt" ? "txt" : "jsonl";
          const [bytes, version] = [Number(size), `${mtimeNs} ${ctimeNs}`];
          files.set(real, { path, kind: format, compressed: kind[2] !== undefined, bytes, version, field });
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

interface Expansion {
  readonly baseDir: string;
  readonly rule: FilesRule;
  readonly refuse: (description: string) => void;
  readonly leftOut: LeftOut;
}

async function expand(given: string, { baseDir, rule, refuse, leftOut }: Expansion): Promise<FolderFile[]> {
  const path = resolve(baseDir, given);
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw error;
  });
  if (found?.isFile()) return [named(path)];
  if (found?.isDirectory()) {
    const documents = rule === "now" ? await documentsBelow(path, leftOut) : await documentsBelowAsBefore(path);
    if (documents.length === 0) refuse(`${path} holds no ${KINDS} file`);
    return documents;
  }
  if (found) {
    refuse(`${path} is neither a file nor a directory`);
    return [];
  }
  const matches = isDynamicPattern(given) ? await glob(given, { ...FILES_ONLY, cwd: baseDir }) : undefined;
  if (!matches) refuse(`${path} does not exist`);
  else if (matches.length === 0) refuse(`${given} matches no file in ${baseDir}`);
  return (matches ?? []).sort().map(named);
}

async function documentsBelow(folder: string, leftOut: LeftOut): Promise<FolderFile[]> {
  const { files, hidden, links } = await folderContent(folder);
  for (const { path } of files) if (!KIND.test(path)) leftOut.otherKind(path);
  leftOut.hidden(hidden);
  leftOut.again(...links);
  return files.filter(({ path }) => KIND.test(path));
}

async function documentsBelowAsBefore(folder: string): Promise<FolderFile[]> {
  const paths = await glob("**/*.{txt,jsonl,txt.gz,jsonl.gz}", { ...FILES_ONLY, cwd: folder });
  return paths.sort().map(named);
}

function named(path: string): FolderFile {
  return { path, realPath: undefined };
}
