import { parameterLayout, type ParameterEntry } from "../model/sizes.js";
import type { ModelSpec } from "../spec/job-spec.js";
import { byteEndToken, byteTokenizerJson } from "../tokenizer/byte-tokenizer-json.js";
import { addedTokens } from "../tokenizer/token-names.js";
import { configToHuggingFace, EXPORT_DTYPES, type ExportDtype } from "./hugging-face.js";
import { safetensorsHeader } from "./safetensors.js";

/**
 * What a Hugging Face folder has beside its weights and its `tokenizer.json`: texts by their file's name. A model on bytes has a
 * `tokenizer.json` among them.
 * @param tokenizer content of the model's `tokenizer.json`; undefined for a model on bytes
 */
export function folderTexts(model: ModelSpec, eosId: number, dtype: ExportDtype, tokenizer?: unknown): Map<string, string> {
  const ends = { bos_token_id: eosId, eos_token_id: eosId, pad_token_id: eosId };
  // Other tokens than added ones are none that a text is searched for: named here, they would change the ids of texts that hold the name.
  const end = tokenizer === undefined ? byteEndToken(eosId) : addedTokens(tokenizer).get(eosId);
  const files: Record<string, unknown> = {
    "config.json": configToHuggingFace(model, eosId, dtype),
    "generation_config.json": ends,
    // Without it transformers takes the class that it holds for the model's, GPT-NeoX's, with ids of its own.
    "tokenizer_config.json": {
      tokenizer_class: "PreTrainedTokenizerFast",
      clean_up_tokenization_spaces: false,
      ...(end !== undefined && { eos_token: end }),
    },
    ...(tokenizer === undefined && { "tokenizer.json": byteTokenizerJson(eosId) }),
  };
  return new Map(Object.entries(files).map(([name, value]) => [name, `${JSON.stringify(value, null, 2)}\n`]));
}

/** A file of weights: its header, then the flat parameters [first, end) in the header's order. */
export interface WeightFile {
  readonly name: string;
  readonly header: Uint8Array;
  readonly first: number;
  readonly end: number;
}

/**
 * The files of a model's weights: `model.safetensors`, or several of at most `mostBytes` of data (a tensor alone may have more) with the
 * text of the index that says which tensor is in which.
 */
export function weightFiles(model: ModelSpec, dtype: ExportDtype, mostBytes: number): { files: WeightFile[]; index?: string } {
  const { entries, size } = parameterLayout(model);
  const bytesEach = dtype === "bf16" ? 2 : 4;
  const parts: ParameterEntry[][] = [];
  let room = 0;
  for (const entry of entries) {
    const bytes = bytesEach * entry.size;
    if (bytes > room || parts.length === 0) {
      parts.push([]);
      room = mostBytes;
    }
    parts.at(-1)!.push(entry);
    room -= bytes;
  }
  const digits = (number: number): string => String(number).padStart(5, "0");
  const nameOf = (part: number): string =>
    parts.length === 1 ? "model.safetensors" : `model-${digits(part + 1)}-of-${digits(parts.length)}.safetensors`;
  const files = parts.map((part, number) => {
    const header = part.map(({ name, shape }) => ({ name, dtype: EXPORT_DTYPES[dtype].stored, shape }));
    const last = part.at(-1)!;
    return {
      ...{ name: nameOf(number), header: safetensorsHeader(header, { format: "pt" }) },
      ...{ first: part[0]!.offset, end: last.offset + last.size },
    };
  });
  if (parts.length === 1) return { files };
  const weight_map = Object.fromEntries(parts.flatMap((part, number) => part.map(({ name }) => [name, nameOf(number)])));
  const metadata = { total_parameters: size, total_size: bytesEach * size };
  return { files, index: `${JSON.stringify({ metadata, weight_map }, null, 2)}\n` };
}
