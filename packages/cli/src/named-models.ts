import { MODEL_PRESETS, validateJobSpec, type ModelSpec } from "@segue/core";

/** Of GPT-NeoX's tokenizer, padded: what the public models have. */
export const PUBLIC_VOCAB = 50_288;

/** Sizes as a job spec has them, filled in. @throws SegueError SPEC_INVALID as for a job with this model */
export function modelOf(model: object): ModelSpec {
  return validateJobSpec({ model, data: { passkey: {} }, train: { steps: 1 } }).spec.model;
}

/** Those that a job spec can name. */
export function namedModels(vocab = PUBLIC_VOCAB): { name: string; model: ModelSpec }[] {
  return Object.keys(MODEL_PRESETS).map((name) => ({ name, model: modelOf({ preset: name, vocab }) }));
}
