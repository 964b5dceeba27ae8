import { execFile } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** Compiles `<source>.c` beside this file into a shared library of this name. @returns its path */
export async function buildFakeLibrary(source: string, folder: string, fileName: string): Promise<string> {
  const path = join(folder, fileName);
  const file = fileURLToPath(new URL(`./${source}.c`, import.meta.url));
  await promisify(execFile)("g++", ["-x", "c", "-shared", "-fPIC", "-o", path, file]);
  return path;
}
