import { readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  byteTokenizer,
  huggingFaceTokenizer,
  isByteTokenizer,
  namedEndTokens,
  parsePythonJson,
  SegueError,
  tokenId,
  type EndTokenFiles,
  type ModelSpec,
  type Tokenizer,
} from "@segue/core";
import { createEngine, loadParameters, readModelConfig, type Engine, type EngineName } from "@segue/engine";
import { formatCount } from "./show/format.js";

/** Embeddings of models on bytes have 256 rows and padding. */
const MAX_BYTES_VOCAB = 256 + 1024;

export interface OpenModel {
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  /** Tokens that end a text, the tokenizer's first. */
  readonly endIds: readonly number[];
}

/**
 * The model of a checkpoint or public model folder, in float32 on an engine; the caller closes it.
 * @throws SegueError TOKENIZER_MISSING, TOKENIZER_INVALID, ENGINE_UNAVAILABLE, and those of loadParameters
 */
export async function openModelFolder(
  dir: string,
  { engine: choice, threads }: { readonly engine: EngineName | "auto"; readonly threads: number },
): Promise<OpenModel> {
  const model = await readModelConfig(dir);
  const reader = await tokenizerOf(dir, model);
  const engine = await createEngine(choice, { model, precision: "f32", threads });
  try {
    await loadParameters(engine, dir);
    return { engine, ...reader };
  } catch (error) {
    engine.close();
    throw error;
  }
}

async function tokenizerOf(dir: string, model: ModelSpec): Promise<Omit<OpenModel, "engine">> {
  const json = await readJson(dir, "tokenizer.json", JSON.parse);
  const files: EndTokenFiles = {
    generationConfig: await readJson(dir, "generation_config.json"),
    config: await readJson(dir, "config.json"),
    tokenizerConfig: await readJson(dir, "tokenizer_config.json"),
    specialTokensMap: await readJson(dir, "special_tokens_map.json"),
  };
  const ends = namedEndTokens(files, model.vocab, (name) => tokenId(json, name));
  // Where no file names one, the tokenizer knows those of well-known models.
  const withEnds = (make: (eosId?: number) => Tokenizer): Omit<OpenModel, "engine"> => {
    const tokenizer = make(ends[0]);
    return { tokenizer, endIds: ends.length > 0 ? ends : [tokenizer.eosId] };
  };
  if (json !== undefined && !isByteTokenizer(json)) return withEnds((eosId) => huggingFaceTokenizer(json, { eosId }));
  if (json !== undefined || (model.vocab >= 256 && model.vocab <= MAX_BYTES_VOCAB)) return withEnds(byteTokenizer);
  throw new SegueError(
    "TOKENIZER_MISSING",
    `${dir} has no tokenizer.json, and a model of ${formatCount(model.vocab)} tokens does not read bytes; put the model's tokenizer.json there.`,
    { status: "NOT_FOUND" },
  );
}

/** @returns undefined where there is no such file; @throws SegueError TOKENIZER_INVALID when it is not JSON */
async function readJson(dir: string, name: string, parse: (text: string) => unknown = parsePythonJson): Promise<unknown> {
  const text = await readFile(join(dir, name), "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  return text === undefined ? undefined : parsed(text, name, parse);
}

/** @throws SegueError TOKENIZER_INVALID */
export function parseTokenizer(json: string): unknown {
  return parsed(json, "tokenizer.json", JSON.parse);
}

function parsed(text: string, name: string, parse: (text: string) => unknown): unknown {
  try {
    return parse(text);
  } catch (cause) {
    throw new SegueError("TOKENIZER_INVALID", `Not a usable ${name}: it is not JSON.`, { cause });
  }
}
