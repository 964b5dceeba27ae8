import { execFileSync } from "node:child_process";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { onePage, parameterLayout, randomStream, validateJobSpec, type ExportDtype, type ModelSpec } from "@segue/core";
import { exportFolder, writeModelFolder } from "@segue/engine";

/** What transformers found in an exported folder, as `load.py` prints it. */
export interface Found {
  readonly transformers: string;
  readonly dtype: string;
  readonly endToken: string | null;
  readonly endId: number | null;
  readonly modelEndId: number;
  readonly ids: readonly (readonly number[])[];
  readonly back: readonly string[];
  /** After the prompt. */
  readonly logits: readonly number[];
  readonly continuation: readonly number[];
}

export interface ExportCase {
  readonly model: ModelSpec;
  readonly eosId: number;
  readonly dtype: ExportDtype;
  readonly mostFileBytes: number;
  readonly tokenizer?: object;
  /** The version whose gated norm works within groups. */
  readonly since?: string;
}

export const REQUEST = {
  prompt: "the quick brown fox ",
  tokens: 40,
  texts: ["abcd", "the quick\n\nfox", "\u0100 \u010a \u00e9\u20ac\ud83d\ude00 <s>\r\n  x", "a<|fin|>b"],
} as const;

const { spec } = validateJobSpec({
  model: { layers: 2, dModel: 32, headDim: 16, dState: 16, chunk: 32 },
  data: { passkey: {} },
  train: { steps: 1 },
});
const modelOf = (fields: Partial<ModelSpec>): ModelSpec => ({ ...spec.model, ...fields });

const END = { id: 0, content: "<|fin|>", single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
const LETTERS = [..."abcdefghijklmnopqrstuvwxyz\u0120"];

/** A byte-level BPE of a few words whose end token no list of well-known ones has. */
const NAMED_TOKENIZER = {
  ...{ version: "1.0", truncation: null, padding: null, added_tokens: [END], normalizer: null, post_processor: null },
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: {
    ...{ type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null },
    ...{ fuse_unk: false, byte_fallback: false, ignore_merges: false },
    vocab: Object.fromEntries([END.content, ...LETTERS, "th", "the", "qu", "ck"].map((name, id) => [name, id])),
    merges: ["t h", "th e", "q u", "c k"],
  },
};

export const CASES: Readonly<Record<string, ExportCase>> = {
  bytes: { model: modelOf({}), eosId: 0, dtype: "f32", mostFileBytes: 5e9 },
  "bytes, a newline ends": { model: modelOf({ tieEmbeddings: false }), eosId: 10, dtype: "f32", mostFileBytes: 5e9 },
  "bytes, ends with a semicolon": { model: modelOf({ tieEmbeddings: false }), eosId: 59, dtype: "f32", mostFileBytes: 5e9 },
  "bytes, bf16, several files": { model: modelOf({}), eosId: 200, dtype: "bf16", mostFileBytes: 20_000 },
  "named end token, several files": {
    ...{ model: modelOf({ vocab: 32 }), eosId: 0, dtype: "f32", mostFileBytes: 9_000 },
    tokenizer: NAMED_TOKENIZER,
  },
  "two groups": { model: modelOf({ groups: 2 }), eosId: 0, dtype: "f32", mostFileBytes: 5e9, since: "5.24" },
};

/** Weights that every machine draws alike, large enough that no two tokens are nearly equally likely. */
export function weightsOf(model: ModelSpec): Float32Array {
  const { entries, size } = parameterLayout(model);
  const flat = new Float32Array(size);
  for (const { name, shape, offset, size: length } of entries) {
    const random = randomStream(11, name);
    const around = name.endsWith("dt_bias")
      ? -2
      : name.endsWith("A_log")
        ? 0.5
        : shape.length === 1 && !name.endsWith("bias")
          ? 1
          : 0;
    const spread = shape.length === 1 ? 0.4 : 4 / Math.sqrt(shape.at(-1)!);
    for (let i = 0; i < length; i++) flat[offset + i] = around + spread * (random.uniform() - 0.5);
  }
  return flat;
}

/** What `segue export` leaves of a checkpoint of this model. @returns its folder */
export async function exported({ model, eosId, tokenizer, ...options }: ExportCase): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "segue-export-"));
  await writeModelFolder(folder, { model, parameters: onePage(weightsOf(model)) }, eosId);
  if (tokenizer) await writeFile(join(folder, "tokenizer.json"), JSON.stringify(tokenizer));
  await exportFolder(folder, options);
  return folder;
}

export interface Python {
  readonly command: string;
  /** Of transformers. */
  readonly version: string;
}

/** `SEGUE_TEST_PYTHON`, which must have torch and transformers, or `python3` if that has them. */
export function findPython(): Python | undefined {
  const command = process.env["SEGUE_TEST_PYTHON"] ?? "python3";
  const code = "import torch, transformers; print(transformers.__version__)";
  try {
    return { command, version: execFileSync(command, ["-c", code], { encoding: "utf8", stdio: "pipe" }).trim() };
  } catch (error) {
    if (process.env["SEGUE_TEST_PYTHON"] === undefined) return undefined;
    throw error;
  }
}

/** Loads folders with the real transformers. */
export function loadWith({ command }: Python, folders: readonly string[]): Found[] {
  const script = fileURLToPath(new URL("load.py", import.meta.url));
  const env = { ...process.env, HF_HUB_OFFLINE: "1", TRANSFORMERS_VERBOSITY: "error" };
  const lines = execFileSync(command, [script, ...folders], {
    input: JSON.stringify(REQUEST),
    encoding: "utf8",
    stdio: "pipe",
    env,
  });
  return lines
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Found);
}

/** Whether the first version is not below the second. */
export function isFrom(version: string, least: string): boolean {
  const [a, b] = [version, least].map((text) => text.split(".").map(Number)) as [number[], number[]];
  return a[0]! !== b[0]! ? a[0]! > b[0]! : a[1]! >= b[1]!;
}
