import { modelWidths, type ModelSpec } from "@segue/core";
import type { LayerMoments } from "../engine.js";
import type { Take } from "./buffers.js";
import { momentFloats } from "./mamba2.js";

/** Room for {@link LayerMoments} of `lanes` lanes. */
export function newLayerMoments(model: ModelSpec, lanes: number): LayerMoments {
  const heads = lanes * model.layers * modelWidths(model).heads;
  const groups = lanes * model.layers * model.groups;
  return {
    dt_BLH: new Float32Array(heads),
    x2_BLH: new Float32Array(heads),
    b2_BLG: new Float32Array(groups),
    c2_BLG: new Float32Array(groups),
  };
}

export function takeMoments<F>(model: ModelSpec, lanes: number, take: Take<F>): F {
  return take(lanes * model.layers * momentFloats(model));
}

/** @param sums [lanes, layers, {@link momentFloats}] */
export function fillMoments(model: ModelSpec, sums: Float32Array, { dt_BLH, x2_BLH, b2_BLG, c2_BLG }: LayerMoments): void {
  const { heads } = modelWidths(model);
  const { groups } = model;
  const floats = momentFloats(model);
  for (let layer = 0; layer < sums.length / floats; layer++) {
    const of = sums.subarray(layer * floats, (layer + 1) * floats);
    dt_BLH.set(of.subarray(0, heads), layer * heads);
    x2_BLH.set(of.subarray(heads, 2 * heads), layer * heads);
    b2_BLG.set(of.subarray(2 * heads, 2 * heads + groups), layer * groups);
    c2_BLG.set(of.subarray(2 * heads + groups), layer * groups);
  }
}
