import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import type { Violation } from "@segue/core";
import { glob, isDynamicPattern } from "tinyglobby";

export interface FoundFile {
  /** Absolute. */
  readonly path: string;
  readonly kind: "txt" | "jsonl";
  readonly compressed: boolean;
  readonly bytes: number;
  readonly modifiedMs: number;
  /** The setting that named it, for messages. */
  readonly field: string;
}

const KINDS = ".txt, .jsonl, .txt.gz or .jsonl.gz";

/**
 * The files that `data.paths` names, each once: files as they are, directories with all documents below them, globs. In the order of the
 * paths and within one path in the order of their names.
 */
export async function findFiles(
  paths: readonly string[],
  baseDir: string,
): Promise<{ files: FoundFile[]; violations: Violation[] }> {
  const files = new Map<string, FoundFile>();
  const violations: Violation[] = [];
  for (const [index, given] of paths.entries()) {
    const field = `data.paths[${index}]`;
    const refuse = (description: string): void => void violations.push({ field, description });
    try {
      for (const path of await expand(given, baseDir, refuse)) {
        const kind = /\.(txt|jsonl)(\.gz)?$/i.exec(path);
        const { size, mtimeMs } = await stat(path);
        if (!kind) refuse(`${path} is not a ${KINDS} file`);
        else if (size === 0) refuse(`${path} is empty`);
        else if (!files.has(path)) {
          const format = kind[1]?.toLowerCase() === "txt" ? "txt" : "jsonl";
          files.set(path, { path, kind: format, compressed: kind[2] !== undefined, bytes: size, modifiedMs: mtimeMs, field });
        }
      }
    } catch (error) {
      refuse(`${given} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return { files: [...files.values()], violations };
}

async function expand(given: string, baseDir: string, refuse: (description: string) => void): Promise<string[]> {
  const path = resolve(baseDir, given);
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw error;
  });
  const options = { absolute: true, onlyFiles: true, expandDirectories: false };
  if (found?.isFile()) return [path];
  if (found?.isDirectory()) {
    const below = await glob("**/*.{txt,jsonl,txt.gz,jsonl.gz}", { ...options, cwd: path });
    if (below.length === 0) refuse(`${path} holds no ${KINDS} file`);
    return below.sort();
  }
  if (found) {
    refuse(`${path} is neither a file nor a directory`);
    return [];
  }
  const matches = isDynamicPattern(given) ? await glob(given, { ...options, cwd: baseDir }) : undefined;
  if (!matches) refuse(`${path} does not exist`);
  else if (matches.length === 0) refuse(`${given} matches no file in ${baseDir}`);
  return (matches ?? []).sort();
}
