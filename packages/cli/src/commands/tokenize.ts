import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { Option, type Command } from "commander";
import { byteTokenizer, documentTokens, huggingFaceTokenizer, SegueError, type Tokenizer } from "@segue/core";
import { addJsonOption } from "../connection.js";
import { parseTokenizer } from "../model-folder.js";
import { promptTokens } from "../prompt-tokens.js";
import { Output, type CliRuntime } from "../runtime.js";
import { formatCount } from "../show/format.js";

interface TokenizeOptions {
  readonly tokenizer: string;
  readonly as: "training" | "prompt";
  readonly print?: boolean;
  readonly json?: boolean;
}

export function addTokenizeCommand(program: Command, runtime: CliRuntime): void {
  addJsonOption(program.command("tokenize <file>"))
    .description("the tokens of a text, as training, generation and evaluation read them")
    .requiredOption("--tokenizer <file>", "a tokenizer.json, a folder with one, or the word bytes")
    .addOption(new Option("--as <use>", "who reads the text").choices(["training", "prompt"]).default("training"))
    .option("--print", "print the ids as one JSON array and nothing else")
    .addHelpText(
      "after",
      "\nThe ids are those of the Python library `tokenizers` for the whole text, without special tokens added, however long it is; what\n" +
        "cannot be computed exactly is refused by name (TOKENIZER_UNSUPPORTED). The file is one document, as a .txt is in training.\n\n" +
        "Examples:\n  segue tokenize book.txt --tokenizer tokenizer.json\n" +
        "  segue tokenize book.txt --tokenizer ./text-model --print --as prompt > ids.json\n",
    )
    .action((file: string, options: TokenizeOptions) => tokenize(file, options, runtime));
}

async function tokenize(file: string, options: TokenizeOptions, runtime: CliRuntime): Promise<void> {
  if (/\.(jsonl|gz)$/i.test(file)) {
    throw new SegueError("USAGE", `${file} is no plain text; write the text of one document into a file of its own.`);
  }
  const output = new Output(runtime, options.json === true);
  const tokenizer = await openTokenizer(options.tokenizer);
  const ids =
    options.as === "training"
      ? documentTokens(fileBytes(file), tokenizer)
      : promptTokens({ promptFile: file }, tokenizer, runtime.signal);
  const startedAt = performance.now();
  let tokens = 0;
  for await (const part of ids) {
    runtime.signal.throwIfAborted();
    if (options.print && part.length > 0) runtime.stdout.write(`${tokens === 0 ? "[" : ","}${part.join(",")}`);
    tokens += part.length;
  }
  if (options.print) {
    runtime.stdout.write(tokens === 0 ? "[]\n" : "]\n");
    return;
  }
  const seconds = (performance.now() - startedAt) / 1000;
  const { vocab } = tokenizer;
  output.result(
    { file, tokenizer: options.tokenizer, as: options.as, tokens, vocab, seconds },
    () => `${formatCount(tokens)} tokens of a vocabulary of ${formatCount(vocab)}`,
  );
}

/** The file's bytes less a byte order mark, which training leaves out. */
async function* fileBytes(file: string): AsyncGenerator<Uint8Array> {
  try {
    const bytes: AsyncIterable<Uint8Array> = createReadStream(file);
    let first = true;
    for await (const chunk of bytes) {
      yield first && chunk[0] === 0xef && chunk[1] === 0xbb && chunk[2] === 0xbf ? chunk.subarray(3) : chunk;
      first = false;
    }
  } catch (cause) {
    if (!(cause instanceof Error) || !("syscall" in cause)) throw cause;
    throw new SegueError("FILE_UNREADABLE", `Cannot read ${file}: ${cause.message}`, { cause });
  }
}

/** The end token plays no part in a text's ids, so a file that names none will do as well. */
async function openTokenizer(path: string): Promise<Tokenizer> {
  if (path === "bytes") return byteTokenizer();
  try {
    const isFolder = (await stat(path)).isDirectory();
    const json = parseTokenizer(await readFile(isFolder ? join(path, "tokenizer.json") : path, "utf8"));
    return huggingFaceTokenizer(json, { eosId: 0 });
  } catch (cause) {
    if (!(cause instanceof Error) || !("syscall" in cause)) throw cause;
    throw new SegueError("FILE_UNREADABLE", `Cannot read the tokenizer ${path}: ${cause.message}`, { cause });
  }
}
