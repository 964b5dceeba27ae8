import { statfs } from "node:fs/promises";
import { SegueError } from "@segue/core";

/** No space left, over quota, larger than the process may write, and the file system's other ways to say so. */
const OUT_OF_SPACE: readonly unknown[] = ["ENOSPC", "EDQUOT", "EFBIG"];

const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 30_000;

/** @param failures in a row, at least 1 */
export function retryDelayMs(failures: number): number {
  return Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** (failures - 1));
}

export function isOutOfSpace(error: unknown): boolean {
  return error instanceof Error && OUT_OF_SPACE.includes((error as NodeJS.ErrnoException).code);
}

/** Bytes that this process may still write there; undefined when the file system does not say. */
export async function freeBytes(folder: string): Promise<number | undefined> {
  const status = await statfs(folder).catch(() => undefined);
  return status && status.bavail * status.bsize;
}

export function storeFull(path: string, free: number | undefined, cause: unknown): SegueError {
  const message = `There is no room for ${path} (${free ?? "unknown"} bytes are free); free some space there and try again.`;
  return new SegueError("STORE_FULL", message, { status: "RESOURCE_EXHAUSTED", retryable: true, cause });
}
