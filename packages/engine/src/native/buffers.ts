import { modelWidths, type ModelSpec } from "@segue/core";

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

/** Takes the next `length` floats of an arena. */
export type Take<F> = (length: number) => F;

/** Buffers of a forward pass. Only training keeps every layer's own; otherwise all layers share one set. */
export function takeForward<F>(
  model: ModelSpec,
  lanes: number,
  tokens: number,
  training: boolean,
  take: Take<F>,
): ForwardBuffers<F> {
  const { dInner, heads, convDim, dInProj } = modelWidths(model);
  const rows = lanes * tokens;
  const layer = (): LayerBuffers<F> => ({
    sum_RD: take(rows * model.dModel),
    inverseRms_R: take(rows),
    projected_RJ: take(rows * dInProj),
    taps_BWC: take(lanes * (model.dConv - 1) * convDim),
    xBC_RC: take(rows * convDim),
    dt_RH: take(rows * heads),
    chunkStates_BKHPN: take(stateFloatsOfChunks(model, lanes, tokens)),
    y_RI: take(rows * dInner),
    gateInverseRms_R: take(rows),
  });
  const shared = training ? undefined : layer();
  const layers = Array.from({ length: model.layers }, () => shared ?? layer());
  return {
    layers,
    normed_RD: take(rows * model.dModel),
    gated_RI: take(rows * dInner),
    mixed_RD: take(rows * model.dModel),
    finalSum_RD: take(rows * model.dModel),
    finalInverseRms_R: take(rows),
    losses_R: take(rows),
  };
}

export function takeBackward<F>(model: ModelSpec, lanes: number, tokens: number, take: Take<F>): BackwardBuffers<F> {
  const { dInner, heads, convDim, dInProj } = modelWidths(model);
  const rows = lanes * tokens;
  return {
    weights_R: take(rows),
    dNormed_RD: take(rows * model.dModel),
    dSum_RD: take(rows * model.dModel),
    dGated_RI: take(rows * dInner),
    dProjected_RJ: take(rows * dInProj),
    dXBC_RC: take(rows * convDim),
    dDt_RH: take(rows * heads),
    dChunkStates_BKHPN: take(stateFloatsOfChunks(model, lanes, tokens)),
  };
}

/** Floats of the states before every chunk of every lane. */
function stateFloatsOfChunks(model: ModelSpec, lanes: number, tokens: number): number {
  return lanes * Math.ceil(tokens / model.chunk) * modelWidths(model).dInner * model.dState;
}
