import { modelWidths, type ModelSpec } from "@segue/core";
import type { Device } from "../devices/device.js";
import type { DtSums, LayerMoments, Recurrence } from "../engine.js";
import type { Take } from "./buffers.js";
import { momentFloats } from "./mamba2.js";

/** Room for {@link LayerMoments} of `lanes` lanes. */
export function newLayerMoments(model: ModelSpec, lanes: number): LayerMoments {
  const heads = lanes * model.layers * modelWidths(model).heads;
  const groups = lanes * model.layers * model.groups;
  return {
    dt_BLH: new Float64Array(heads),
    x2_BLH: new Float64Array(heads),
    b2_BLG: new Float64Array(groups),
    c2_BLG: new Float64Array(groups),
  };
}

export function hasSquares(moments: DtSums | LayerMoments | undefined): moments is LayerMoments {
  return moments !== undefined && "x2_BLH" in moments;
}

export function takeMoments<F>(model: ModelSpec, lanes: number, take: Take<F>): F {
  return take(lanes * model.layers * momentFloats(model));
}

/** Fills `into` with what a pass left in the buffer of {@link takeMoments}. */
export function readMoments<F>(
  device: Device<F, unknown>,
  model: ModelSpec,
  moments: F,
  { insertion = 1 }: Partial<Recurrence>,
  into: DtSums | LayerMoments,
): void {
  const { heads } = modelWidths(model);
  const { groups } = model;
  const floats = momentFloats(model);
  const layers = into.dt_BLH.length / heads;
  const sums = device.isWide ? new Float64Array(layers * floats) : new Float32Array(layers * floats);
  device.download(moments, sums);
  for (let layer = 0; layer < layers; layer++) {
    const of = sums.subarray(layer * floats, (layer + 1) * floats);
    into.dt_BLH.set(of.subarray(0, heads), layer * heads);
    if (!hasSquares(into)) continue;
    into.x2_BLH.set(of.subarray(heads, 2 * heads), layer * heads);
    into.b2_BLG.set(
      of.subarray(2 * heads, 2 * heads + groups).map((sum) => sum * insertion * insertion),
      layer * groups,
    );
    into.c2_BLG.set(of.subarray(2 * heads + groups), layer * groups);
  }
}
