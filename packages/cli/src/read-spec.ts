import { readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { SegueError } from "@segue/core";

/** The text of a job spec; - reads standard input. @throws SegueError FILE_UNREADABLE */
export async function readSpec(file: string): Promise<string> {
  try {
    return file === "-" ? await text(process.stdin) : await readFile(file, "utf8");
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new SegueError("FILE_UNREADABLE", `Cannot read the job spec ${file}: ${reason}`, { cause });
  }
}
