import type { ParameterLayout } from "@segue/core";
import type { Device } from "../devices/device.js";

/** Views of one block's tensors in a flat vector (of parameters or of gradients); shapes as in the layout. */
export interface BlockTensors<F> {
  readonly norm_D: F;
  readonly inProj_JD: F;
  readonly convWeight_CW: F;
  readonly convBias_C: F;
  readonly dtBias_H: F;
  readonly aLog_H: F;
  readonly skip_H: F;
  readonly gateNorm_I: F;
  readonly outProj_DI: F;
}

export interface ModelTensors<F> {
  readonly embedding_VD: F;
  readonly blocks: readonly BlockTensors<F>[];
  readonly finalNorm_D: F;
  /** The embedding itself when tied. */
  readonly head_VD: F;
}

/** Cuts a flat vector into the model's tensors. */
export function modelTensors<F>(device: Device<F, unknown>, layout: ParameterLayout, layers: number, flat: F): ModelTensors<F> {
  const entries = new Map(layout.entries.map((entry) => [entry.name, entry]));
  const find = (name: string): F | undefined => {
    const entry = entries.get(name);
    return entry && device.slice(flat, entry.offset, entry.size);
  };
  const tensor = (name: string): F => {
    const found = find(name);
    if (found === undefined) throw new Error(`the parameter layout lacks ${name}`);
    return found;
  };
  const embedding_VD = tensor("backbone.embeddings.weight");
  const block = (layer: number): BlockTensors<F> => {
    const prefix = `backbone.layers.${layer}`;
    return {
      norm_D: tensor(`${prefix}.norm.weight`),
      inProj_JD: tensor(`${prefix}.mixer.in_proj.weight`),
      convWeight_CW: tensor(`${prefix}.mixer.conv1d.weight`),
      convBias_C: tensor(`${prefix}.mixer.conv1d.bias`),
      dtBias_H: tensor(`${prefix}.mixer.dt_bias`),
      aLog_H: tensor(`${prefix}.mixer.A_log`),
      skip_H: tensor(`${prefix}.mixer.D`),
      gateNorm_I: tensor(`${prefix}.mixer.norm.weight`),
      outProj_DI: tensor(`${prefix}.mixer.out_proj.weight`),
    };
  };
  return {
    embedding_VD,
    blocks: Array.from({ length: layers }, (_, layer) => block(layer)),
    finalNorm_D: tensor("backbone.norm_f.weight"),
    head_VD: find("lm_head.weight") ?? embedding_VD,
  };
}
