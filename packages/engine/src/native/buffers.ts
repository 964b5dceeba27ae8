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
  readonly keptStates: F | undefined;
  readonly y_RI: F;
  readonly gateInverseRms_RG: F;
  readonly again: ComputedAgain;
}

/**
 * What the backward pass computes again of a layer: nothing; the convolution and the states within lanes; all that follows from the
 * residual stream. What is computed again lies in buffers that such layers share.
 */
export type ComputedAgain = "nothing" | "convolution" | "layer";

/**
 * Of one layer, after so many economies: the first of every layer is the cheapest for its bytes, so that all layers make it before one
 * makes the second.
 */
export function computedAgain(layer: number, layers: number, economies = 0): ComputedAgain {
  if (layer < economies - layers) return "layer";
  return layer < economies ? "convolution" : "nothing";
}

/** There are no more than these. */
export const mostEconomies = (model: ModelSpec): number => 2 * model.layers;

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

/** What the backward pass computes again, and what it can keep. */
export type Keeping = Pick<Device<never, never>, "economies" | "keptStateFloats">;

/** Takes the next buffer of `length` elements from an arena; of floats unless it says otherwise. */
export type Take<F> = (length: number, kind?: BufferKind) => F;

/**
 * Buffers of a forward pass. Only training keeps every layer's own; otherwise all layers share one set.
 * Layers of which something is computed again share that even so.
 */
export function takeForward<F>(
  model: ModelSpec,
  lanes: number,
  tokens: number,
  training: boolean,
  take: Take<F>,
  { economies, keptStateFloats }: Keeping = {},
): ForwardBuffers<F> {
  const { dInner, heads, convDim, dInProj } = modelWidths(model);
  const rows = lanes * tokens;
  const sharedIf = (length: number, kind?: BufferKind): ((isShared: boolean) => F) => {
    let one: { buffer: F } | undefined;
    return (isShared) => (isShared ? (one ??= { buffer: take(length, kind) }).buffer : take(length, kind));
  };
  const projected = sharedIf(rows * dInProj, "activation");
  const xBC = sharedIf(rows * convDim, "activation");
  const dt = sharedIf(rows * heads);
  const y = sharedIf(rows * dInner, "activation");
  const firstStates = economies === undefined ? stateFloatsOfChunks(model, lanes, tokens) : lanes * dInner * model.dState;
  const keptStates = keptStateFloats?.({ ...model, heads }, lanes, tokens) ?? 0;
  const layer = (again: ComputedAgain): LayerBuffers<F> => ({
    sum_RD: take(rows * model.dModel),
    inverseRms_R: take(rows),
    projected_RJ: projected(again === "layer"),
    taps_BWC: take(lanes * (model.dConv - 1) * convDim),
    xBC_RC: xBC(again !== "nothing"),
    dt_RH: dt(again === "layer"),
    chunkStates_BKHPN: take(firstStates),
    keptStates: keptStates > 0 && again === "nothing" ? take(keptStates, "activation") : undefined,
    y_RI: y(again === "layer"),
    gateInverseRms_RG: take(rows * model.groups),
    again,
  });
  const shared = training ? undefined : layer("nothing");
  const layers = Array.from({ length: model.layers }, (_, i) => shared ?? layer(computedAgain(i, model.layers, economies)));
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

/** @param mixed_RD the forward pass is done with it */
export function takeBackward<F>(
  model: ModelSpec,
  lanes: number,
  tokens: number,
  { mixed_RD }: Pick<ForwardBuffers<F>, "mixed_RD">,
  take: Take<F>,
  { economies }: Keeping = {},
): BackwardBuffers<F> {
  const { dInner, heads, convDim, dInProj } = modelWidths(model);
  const rows = lanes * tokens;
  return {
    weights_R: take(rows),
    dNormed_RD: mixed_RD,
    dSum_RD: take(rows * model.dModel, "mirrored"),
    dGated_RI: take(rows * dInner, "activation"),
    dProjected_RJ: take(rows * dInProj, "activation"),
    dXBC_RC: take(rows * convDim, "activation"),
    dDt_RH: take(rows * heads),
    dChunkStates_BKHPN: take(economies !== undefined ? 0 : stateFloatsOfChunks(model, lanes, tokens)),
  };
}

/** Floats of the states before every chunk of every lane. */
function stateFloatsOfChunks(model: ModelSpec, lanes: number, tokens: number): number {
  return lanes * Math.ceil(tokens / model.chunk) * modelWidths(model).dInner * model.dState;
}
