import type { ModelSpec } from "../spec/job-spec.js";

/** One parameter tensor inside the flat parameter vector. Names and shapes are Hugging Face's `Mamba2ForCausalLM`. */
export interface ParameterEntry {
  readonly name: string;
  readonly shape: readonly number[];
  /** First float in the flat vector. */
  readonly offset: number;
  readonly size: number;
  /** Whether weight decay applies (tensors of two and more dimensions). */
  readonly decay: boolean;
}

export interface ParameterLayout {
  readonly entries: readonly ParameterEntry[];
  /** Floats in the flat vector. */
  readonly size: number;
}

/** Derived widths of a Mamba-2 block (paper.md section 7.1 writes d, di, H, conv_dim, d_in_proj). */
export interface ModelWidths {
  readonly dInner: number;
  readonly heads: number;
  readonly convDim: number;
  readonly dInProj: number;
}

export function modelWidths(model: ModelSpec): ModelWidths {
  const dInner = model.expand * model.dModel;
  const heads = dInner / model.headDim;
  const convDim = dInner + 2 * model.groups * model.dState;
  return { dInner, heads, convDim, dInProj: dInner + convDim + heads };
}

/**
 * The flat parameter vector every engine, exchange and checkpoint agrees on: embedding, blocks in order, final norm, untied head.
 * `conv1d.weight` is [convDim, 1, dConv] and counts as decayed; dt_bias, A_log, D, norms and biases are not (paper.md 3.3, 7.4).
 */
export function parameterLayout(model: ModelSpec): ParameterLayout {
  const { dInner, heads, convDim, dInProj } = modelWidths(model);
  const entries: ParameterEntry[] = [];
  let offset = 0;
  const add = (name: string, ...shape: number[]): void => {
    const size = shape.reduce((product, extent) => product * extent, 1);
    entries.push({ name, shape, offset, size, decay: shape.length > 1 });
    offset += size;
  };
  add("backbone.embeddings.weight", model.vocab, model.dModel);
  for (let layer = 0; layer < model.layers; layer++) {
    const block = `backbone.layers.${layer}`;
    add(`${block}.norm.weight`, model.dModel);
    add(`${block}.mixer.in_proj.weight`, dInProj, model.dModel);
    add(`${block}.mixer.conv1d.weight`, convDim, 1, model.dConv);
    add(`${block}.mixer.conv1d.bias`, convDim);
    add(`${block}.mixer.dt_bias`, heads);
    add(`${block}.mixer.A_log`, heads);
    add(`${block}.mixer.D`, heads);
    add(`${block}.mixer.norm.weight`, dInner);
    add(`${block}.mixer.out_proj.weight`, model.dModel, dInner);
  }
  add("backbone.norm_f.weight", model.dModel);
  if (!model.tieEmbeddings) add("lm_head.weight", model.vocab, model.dModel);
  return { entries, size: offset };
}

/** Floats of the SSM state of one lane: [layers, heads, headDim, dState]. */
export function ssmStateFloats(model: ModelSpec): number {
  return model.layers * modelWidths(model).heads * model.headDim * model.dState;
}

/** Floats of the carried convolution taps of one lane: [layers, dConv - 1, convDim], oldest row first, before bias and activation. */
export function convStateFloats(model: ModelSpec): number {
  return model.layers * (model.dConv - 1) * modelWidths(model).convDim;
}

/** Floats of one lane's recurrent state: its SSM state followed by its convolution taps. */
export function laneStateFloats(model: ModelSpec): number {
  return ssmStateFloats(model) + convStateFloats(model);
}
