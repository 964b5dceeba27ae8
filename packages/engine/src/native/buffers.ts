import { modelWidths, type ModelSpec } from "@segue/core";
import type { BufferKind, Device } from "../devices/device.js";

/** What one layer's forward pass leaves for its backward pass; the rest is recomputed. */
export interface LayerBuffers<F> {
  /** The residual stream at the layer's norm. */
  readonly sum_RD: F;
  readonly inverseRms_R: F;
  /** Output of the input projection, [z | x | B | C | dt]. */
  readonly projected_RJ: F;
  readonly taps_BWC: F;
  readonly xBC_RC: F;
  readonly dt_RH: F;
  readonly chunkStates_BKHPN: F;
  readonly y_RI: F;
  readonly gateInverseRms_R: F;
}

export interface ForwardBuffers<F> {
  readonly layers: readonly LayerBuffers<F>[];
  readonly normed_RD: F;
  readonly gated_RI: F;
  readonly mixed_RD: F;
  readonly finalSum_RD: F;
  readonly finalInverseRms_R: F;
  readonly losses_R: F;
}

export interface BackwardBuffers<F> {
  readonly weights_R: F;
  readonly dNormed_RD: F;
  readonly dSum_RD: F;
  readonly dGated_RI: F;
  readonly dProjected_RJ: F;
  readonly dXBC_RC: F;
  readonly dDt_RH: F;
  readonly dChunkStates_BKHPN: F;
}

/** What the backward pass computes again. */
export type Recomputes = Pick<Device<never, never>, "recomputes" | "recomputesLayers">;

/** Takes the next buffer of `length` elements from an arena; of floats unless it says otherwise. */
export type Take<F> = (length: number, kind?: BufferKind) => F;

/**
 * Buffers of a forward pass. Only training keeps every layer's own; otherwise all layers share one set.
 * @param recomputes whether layers share the convolution's outputs even so, and keep only the first of the chunk states; `layers`:
 * whether they keep nothing but the residual stream and the states
 */
export function takeForward<F>(
  model: ModelSpec,
  lanes: number,
  tokens: number,
  training: boolean,
  take: Take<F>,
  recomputes: Recomputes = {},
): ForwardBuffers<F> {
  const { dInner, heads, convDim, dInProj } = modelWidths(model);
  const rows = lanes * tokens;
  const perLayerUnless = (isShared: boolean | undefined, length: number, kind?: BufferKind): (() => F) => {
    if (!isShared) return () => take(length, kind);
    const one = take(length, kind);
    return () => one;
  };
  const { recomputes: sharesConvolution, recomputesLayers: sharesAll } = recomputes;
  const newProjected = perLayerUnless(sharesAll, rows * dInProj, "activation");
  const newXBC = perLayerUnless(sharesConvolution, rows * convDim, "activation");
  const newDt = perLayerUnless(sharesAll, rows * heads);
  const newY = perLayerUnless(sharesAll, rows * dInner, "activation");
  const layer = (): LayerBuffers<F> => ({
    sum_RD: take(rows * model.dModel),
    inverseRms_R: take(rows),
    projected_RJ: newProjected(),
    taps_BWC: take(lanes * (model.dConv - 1) * convDim),
    xBC_RC: newXBC(),
    dt_RH: newDt(),
    chunkStates_BKHPN: take(sharesConvolution ? lanes * dInner * model.dState : stateFloatsOfChunks(model, lanes, tokens)),
    y_RI: newY(),
    gateInverseRms_R: take(rows),
  });
  const shared = training ? undefined : layer();
  const layers = Array.from({ length: model.layers }, () => shared ?? layer());
  return {
    layers,
    normed_RD: take(rows * model.dModel, "activation"),
    gated_RI: take(rows * dInner, "activation"),
    mixed_RD: take(rows * model.dModel, "activation"),
    finalSum_RD: take(rows * model.dModel),
    finalInverseRms_R: take(rows),
    losses_R: take(rows),
  };
}

export function takeBackward<F>(
  model: ModelSpec,
  lanes: number,
  tokens: number,
  take: Take<F>,
  { recomputes = false }: Recomputes = {},
): BackwardBuffers<F> {
  const { dInner, heads, convDim, dInProj } = modelWidths(model);
  const rows = lanes * tokens;
  return {
    weights_R: take(rows),
    dNormed_RD: take(rows * model.dModel, "activation"),
    dSum_RD: take(rows * model.dModel, "mirrored"),
    dGated_RI: take(rows * dInner, "activation"),
    dProjected_RJ: take(rows * dInProj, "activation"),
    dXBC_RC: take(rows * convDim, "activation"),
    dDt_RH: take(rows * heads),
    dChunkStates_BKHPN: take(recomputes ? 0 : stateFloatsOfChunks(model, lanes, tokens)),
  };
}

/** Floats of the states before every chunk of every lane. */
function stateFloatsOfChunks(model: ModelSpec, lanes: number, tokens: number): number {
  return lanes * Math.ceil(tokens / model.chunk) * modelWidths(model).dInner * model.dState;
}
