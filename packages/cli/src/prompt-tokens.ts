import { createReadStream } from "node:fs";
import { SegueError, type Tokenizer } from "@segue/core";

/**
 * The tokens of a prompt, which is a text or a file of any length; `-` is standard input.
 * @throws SegueError FILE_UNREADABLE, TEXT_UNBROKEN
 */
export async function* promptTokens(
  { prompt, promptFile }: { readonly prompt?: string; readonly promptFile?: string },
  tokenizer: Tokenizer,
  signal: AbortSignal,
): AsyncGenerator<number[], void, undefined> {
  const text = promptFile === undefined ? [prompt ?? ""] : promptFile === "-" ? process.stdin : createReadStream(promptFile);
  if (!Array.isArray(text)) text.setEncoding("utf8");
  try {
    const stream = tokenizer.stream();
    for await (const part of text as AsyncIterable<string>) {
      signal.throwIfAborted();
      yield stream.push(part);
    }
    yield stream.end();
  } catch (cause) {
    if (!(cause instanceof Error) || !("syscall" in cause)) throw cause;
    throw new SegueError("FILE_UNREADABLE", `Cannot read the prompt ${promptFile ?? ""}: ${cause.message}`, { cause });
  }
}
