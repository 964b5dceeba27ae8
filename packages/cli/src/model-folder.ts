import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { byteTokenizer, huggingFaceTokenizer, SegueError, type ModelSpec, type Tokenizer } from "@segue/core";
import { createEngine, loadParameters, readModelConfig, type Engine, type EngineName } from "@segue/engine";
import { formatCount } from "./show/format.js";

/** Embeddings of models on bytes have 256 rows and padding. */
const MAX_BYTES_VOCAB = 256 + 1024;

/**
 * The model of a checkpoint or public model folder, in float32 on an engine; the caller closes it.
 * @throws SegueError TOKENIZER_MISSING, TOKENIZER_INVALID, ENGINE_UNAVAILABLE, and those of loadParameters
 */
export async function openModelFolder(
  dir: string,
  { engine: choice, threads }: { readonly engine: EngineName | "auto"; readonly threads: number },
): Promise<{ engine: Engine; tokenizer: Tokenizer }> {
  const model = await readModelConfig(dir);
  const tokenizer = await tokenizerOf(dir, model);
  const engine = await createEngine(choice, { model, precision: "f32", threads });
  try {
    await loadParameters(engine, dir);
    return { engine, tokenizer };
  } catch (error) {
    engine.close();
    throw error;
  }
}

async function tokenizerOf(dir: string, model: ModelSpec): Promise<Tokenizer> {
  const json = await readFile(join(dir, "tokenizer.json"), "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (json !== undefined) return huggingFaceTokenizer(parseTokenizer(json));
  if (model.vocab >= 256 && model.vocab <= MAX_BYTES_VOCAB) return byteTokenizer();
  throw new SegueError(
    "TOKENIZER_MISSING",
    `${dir} has no tokenizer.json, and a model of ${formatCount(model.vocab)} tokens does not read bytes; put the model's tokenizer.json there.`,
    { status: "NOT_FOUND" },
  );
}

/** @throws SegueError TOKENIZER_INVALID */
export function parseTokenizer(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch (cause) {
    throw new SegueError("TOKENIZER_INVALID", "Not a usable tokenizer.json: it is not JSON.", { cause });
  }
}
