import type { EngineName } from "@segue/engine";
import type { Corpus } from "./corpus.js";
import type { Cell, CellResult } from "./tasks/task.js";

export interface ModelRequest {
  readonly id: number;
  /** Holds config.json, model.safetensors, manifest.json and, for Hugging Face tokenizers, tokenizer.json. */
  readonly folder: string;
  readonly engine: EngineName | "auto";
  readonly threads: number;
  /** Which of the visible GPUs. */
  readonly gpu?: number | undefined;
  readonly cell: Cell;
  /** What the cell's task asks for of the job's documents. */
  readonly corpus: Corpus;
}

export type ModelReply =
  | { readonly id: number; readonly kind: "engine"; readonly engine: string }
  /** Of the cell's size so far. */
  | { readonly id: number; readonly kind: "progress"; readonly done: number }
  | { readonly id: number; readonly kind: "result"; readonly result: CellResult }
  | { readonly id: number; readonly kind: "error"; readonly code: string; readonly message: string };
