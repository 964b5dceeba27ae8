import { convStateFloats, laneStateFloats, modelWidths, ssmStateFloats, type ModelSpec } from "@segue/core";
import type { Device, GatedNormShape, LaneParts, ScanShape, Segment } from "../devices/device.js";
import type { Recurrence } from "../engine.js";
import type { BackwardBuffers, ForwardBuffers } from "./buffers.js";
import type { ModelTensors } from "./parameters.js";

/** What both passes need. Shape suffixes as in devices/device.ts. */
export interface Mamba2<F, I> {
  readonly device: Device<F, I>;
  readonly model: ModelSpec;
  readonly parameters: ModelTensors<F>;
}

export interface TokenSegment<I> extends Segment<I> {
  readonly tokens_R: I;
}

/** What inference may ask for. */
export interface Inference<F> {
  readonly recurrence?: Recurrence | undefined;
  /** Receives the sums of {@link LayerMoments}: [lanes, layers, {@link momentFloats}]. */
  readonly moments?: F | undefined;
  /** Whether those of squares are wanted, too. */
  readonly squares?: boolean | undefined;
}

/** dt is not clamped: the released models' limits are (0, infinity) (paper.md 7.3). */
const DT_LIMITS = { min: 0, max: Infinity };

/** The released models gate first, and norm the heads of each group of B and C by themselves. */
const gatedNormShape = (model: ModelSpec, rows: number): GatedNormShape => {
  const { dInner } = modelWidths(model);
  return { rows, width: dInner, groupWidth: dInner / model.groups, normBeforeGate: false };
};

const scanShape = (model: ModelSpec): ScanShape => ({
  heads: modelWidths(model).heads,
  headDim: model.headDim,
  dState: model.dState,
  groups: model.groups,
  chunk: model.chunk,
});

/** Columns of the input projection: z first, then x | B | C, then dt. */
function projectionColumns<F>(
  model: ModelSpec,
  data: F,
): Record<"gate" | "xBC" | "dt", { data: F; first: number; stride: number }> {
  const { dInner, convDim, dInProj } = modelWidths(model);
  return {
    gate: { data, first: 0, stride: dInProj },
    xBC: { data, first: dInner, stride: dInProj },
    dt: { data, first: dInner + convDim, stride: dInProj },
  };
}

/** Where one layer's SSM state and convolution taps lie in the states of `lanes` lanes. */
function layerState<F, I>(m: Mamba2<F, I>, states: F, lanes: number, layer: number): Record<"ssm" | "taps", LaneParts<F>> {
  const stride = laneStateFloats(m.model);
  const ssm = (ssmStateFloats(m.model) / m.model.layers) * layer;
  const taps = ssmStateFloats(m.model) + (convStateFloats(m.model) / m.model.layers) * layer;
  const from = (offset: number): LaneParts<F> => ({ data: m.device.slice(states, offset, lanes * stride - offset), stride });
  return { ssm: from(ssm), taps: from(taps) };
}

/**
 * The calls of a layer's forward pass that the backward pass may have to repeat, without the states: where those come from and whether
 * they advance is the caller's business.
 */
function layerCalls<F, I>(
  { model }: Mamba2<F, I>,
  segment: TokenSegment<I>,
  block: ModelTensors<F>["blocks"][number],
  l: ForwardBuffers<F>["layers"][number],
  normed_RD: F,
) {
  const { heads, convDim, dInProj } = modelWidths(model);
  const rows = segment.lanes * segment.tokens;
  const columns = projectionColumns(model, l.projected_RJ);
  return {
    // [z | xBC | dt] = u W_in^T
    project: {
      m: rows,
      n: dInProj,
      k: model.dModel,
      a: normed_RD,
      b: block.inProj_JD,
      transposeB: true,
      out: l.projected_RJ,
    },
    // xBC = SiLU(conv(xBC))
    conv: {
      ...segment,
      channels: convDim,
      taps: model.dConv,
      raw: columns.xBC,
      weight_CW: block.convWeight_CW,
      bias_C: block.convBias_C,
      out_RC: l.xBC_RC,
    },
    // dt = softplus(dt + dt_bias)
    timeSteps: { rows, heads, ...DT_LIMITS, raw: columns.dt, bias_H: block.dtBias_H, dt_RH: l.dt_RH },
    // h_t = exp(dt_t A) h_{t-1} + dt_t x_t (outer) B_t;  y_t = h_t C_t + D x_t
    scan: {
      ...segment,
      ...scanShape(model),
      xBC_RC: l.xBC_RC,
      dt_RH: l.dt_RH,
      aLog_H: block.aLog_H,
      skip_H: block.skip_H,
      chunkStates_BKHPN: l.chunkStates_BKHPN,
      keptStates: l.keptStates,
      y_RI: l.y_RI,
    },
  };
}

/** Sums of one lane and layer: dt [H], x² [H], B² [G], C² [G]. */
export function momentFloats(model: ModelSpec): number {
  return 2 * modelWidths(model).heads + 2 * model.groups;
}

/** Of one layer, from what its forward pass left. */
function sumMoments<F, I>(
  m: Mamba2<F, I>,
  segment: TokenSegment<I>,
  l: ForwardBuffers<F>["layers"][number],
  layer: number,
  moments: F,
  squares: boolean,
): void {
  const { device, model } = m;
  const { lanes, tokens } = segment;
  const { heads, dInner, convDim } = modelWidths(model);
  const { headDim, dState, groups } = model;
  const stride = momentFloats(model) * model.layers;
  let first = momentFloats(model) * layer;
  const sum = (of: { data: F; first: number; stride: number }, count: number, width: number, squared: boolean): void => {
    const out = { data: device.slice(moments, first, lanes * stride - first), stride };
    device.laneSums({ lanes, tokens, columns: of, groups: count, width, squared, out });
    first += count;
  };
  const xBC = (column: number) => ({ data: l.xBC_RC, first: column, stride: convDim });
  sum({ data: l.dt_RH, first: 0, stride: heads }, heads, 1, false);
  if (!squares) return;
  sum(xBC(0), heads, headDim, true);
  sum(xBC(dInner), groups, dState, true);
  sum(xBC(dInner + groups * dState), groups, dState, true);
}

/**
 * Embedding, blocks and final norm (paper.md 7.2, 7.3). Advances the states.
 * @returns the normed output of the last block, [R, D], in a buffer of `buffers`
 */
export function forward<F, I>(
  m: Mamba2<F, I>,
  segment: TokenSegment<I>,
  states: F,
  buffers: ForwardBuffers<F>,
  { recurrence, moments, squares = false }: Inference<F> = {},
): F {
  const { device, model, parameters } = m;
  const { dInner } = modelWidths(model);
  const rows = segment.lanes * segment.tokens;
  const norm = { rows, width: model.dModel, eps: model.rmsEps };
  const { normed_RD, gated_RI, mixed_RD } = buffers;

  let residual_RD = buffers.layers[0]?.sum_RD ?? buffers.finalSum_RD;
  let delta_RD: F | undefined;
  device.gatherRows({
    rows,
    width: model.dModel,
    table_VD: parameters.embedding_VD,
    ids_R: segment.tokens_R,
    rows_RD: residual_RD,
  });

  parameters.blocks.forEach((block, layer) => {
    const l = buffers.layers[layer]!;
    const state = layerState(m, states, segment.lanes, layer);
    const columns = projectionColumns(model, l.projected_RJ);
    // r = r + mixer output before; u = RMSNorm(r)
    device.addNorm({
      ...norm,
      residual_RD,
      delta_RD,
      weight_D: block.norm_D,
      sum_RD: l.sum_RD,
      out_RD: normed_RD,
      inverseRms_R: l.inverseRms_R,
    });
    const calls = layerCalls(m, segment, block, l, normed_RD);
    device.matmul(calls.project);
    device.conv({ ...calls.conv, state: state.taps, savedTaps_BWC: l.taps_BWC });
    device.timeSteps({ ...calls.timeSteps, scale: recurrence?.dtScale });
    const { logRetention, insertion } = recurrence ?? {};
    device.scan({ ...calls.scan, logRetention, insertion, state: state.ssm });
    if (moments !== undefined) sumMoments(m, segment, l, layer, moments, squares);
    // RMSNorm(y * SiLU(z)), group by group
    device.gatedNorm({
      ...gatedNormShape(model, rows),
      eps: model.rmsEps,
      y_RI: l.y_RI,
      gate: columns.gate,
      weight_I: block.gateNorm_I,
      out_RI: gated_RI,
      inverseRms: l.gateInverseRms_RG,
    });
    // mixer output = (...) W_out^T
    device.matmul({ m: rows, n: model.dModel, k: dInner, a: gated_RI, b: block.outProj_DI, transposeB: true, out: mixed_RD });
    residual_RD = l.sum_RD;
    delta_RD = mixed_RD;
  });

  device.addNorm({
    ...norm,
    residual_RD,
    delta_RD,
    weight_D: parameters.finalNorm_D,
    sum_RD: buffers.finalSum_RD,
    out_RD: normed_RD,
    inverseRms_R: buffers.finalInverseRms_R,
  });
  return normed_RD;
}

export interface LossTargets<F, I> {
  readonly labels_R: I;
  readonly weights_R: F;
  /** Receives the unweighted cross-entropies. */
  readonly losses_R: F;
}

/**
 * Gradients with respect to the recurrent states of the lanes, laid out as the states: they enter as those of a segment's final states
 * and leave as those of its initial ones. Of an absent part no gradient flows in or out.
 */
export interface StateGradients<F> {
  readonly ssm?: F | undefined;
  readonly taps?: F | undefined;
}

/**
 * Gradients of the weighted loss sum, from the buffers that {@link forward} left (paper.md 7.6).
 * @param stateGradients absent: truncated back-propagation through time
 */
export function backward<F, I>(
  m: Mamba2<F, I>,
  segment: TokenSegment<I>,
  targets: LossTargets<F, I>,
  saved: ForwardBuffers<F>,
  buffers: BackwardBuffers<F>,
  gradients: ModelTensors<F>,
  stateGradients: StateGradients<F> = {},
): void {
  const { device, model, parameters } = m;
  const { dInner, heads, convDim, dInProj } = modelWidths(model);
  const rows = segment.lanes * segment.tokens;
  const { normed_RD, gated_RI } = saved;
  const stateGradient = (part: "ssm" | "taps", layer: number): LaneParts<F> | undefined => {
    const floats = stateGradients[part];
    return floats === undefined ? undefined : layerState(m, floats, segment.lanes, layer)[part];
  };
  const { dNormed_RD, dSum_RD, dGated_RI, dProjected_RJ } = buffers;

  device.headLoss({
    rows,
    width: model.dModel,
    vocab: model.vocab,
    hidden_RD: normed_RD,
    table_VD: parameters.head_VD,
    labels_R: targets.labels_R,
    losses_R: targets.losses_R,
    gradient: { weights_R: targets.weights_R, dHidden_RD: dNormed_RD, dTable_VD: gradients.head_VD },
  });
  device.addNormBackward({
    rows,
    width: model.dModel,
    sum_RD: saved.finalSum_RD,
    weight_D: parameters.finalNorm_D,
    inverseRms_R: saved.finalInverseRms_R,
    dOut_RD: dNormed_RD,
    dSum_RD,
    accumulate: false,
    dWeight_D: gradients.finalNorm_D,
    out_RD: normed_RD,
  });

  // dSum is at once the gradient of the residual stream and of the mixer output added to it.
  for (let layer = model.layers - 1; layer >= 0; layer--) {
    const l = saved.layers[layer]!;
    const block = parameters.blocks[layer]!;
    const dBlock = gradients.blocks[layer]!;
    const columns = projectionColumns(model, l.projected_RJ);
    const dColumns = projectionColumns(model, dProjected_RJ);

    computeAgain(m, segment, saved, layer);
    device.matmul({ m: rows, n: dInner, k: model.dModel, a: dSum_RD, b: block.outProj_DI, out: dGated_RI });
    const dY_RI = dGated_RI;
    device.gatedNormBackward({
      ...gatedNormShape(model, rows),
      y_RI: l.y_RI,
      gate: columns.gate,
      weight_I: block.gateNorm_I,
      inverseRms: l.gateInverseRms_RG,
      dOut_RI: dGated_RI,
      dY_RI,
      dGate: dColumns.gate,
      dWeight_I: dBlock.gateNorm_I,
      out_RI: gated_RI,
    });
    device.matmul({ m: model.dModel, n: dInner, k: rows, a: dSum_RD, transposeA: true, b: gated_RI, out: dBlock.outProj_DI });

    device.scanBackward({
      ...segment,
      ...scanShape(model),
      xBC_RC: l.xBC_RC,
      dt_RH: l.dt_RH,
      aLog_H: block.aLog_H,
      skip_H: block.skip_H,
      chunkStates_BKHPN: l.chunkStates_BKHPN,
      keptStates: l.keptStates,
      dY_RI,
      dXBC_RC: buffers.dXBC_RC,
      dDt_RH: buffers.dDt_RH,
      dALog_H: dBlock.aLog_H,
      dSkip_H: dBlock.skip_H,
      followsScan: l.again === "layer",
      dChunkStates_BKHPN: buffers.dChunkStates_BKHPN,
      stateGradient: stateGradient("ssm", layer),
    });
    device.timeStepsBackward({
      rows,
      heads,
      ...DT_LIMITS,
      raw: columns.dt,
      bias_H: block.dtBias_H,
      dt_RH: l.dt_RH,
      dDt_RH: buffers.dDt_RH,
      dRaw: dColumns.dt,
      dBias_H: dBlock.dtBias_H,
    });
    device.convBackward({
      ...segment,
      channels: convDim,
      taps: model.dConv,
      raw: columns.xBC,
      weight_CW: block.convWeight_CW,
      bias_C: block.convBias_C,
      savedTaps_BWC: l.taps_BWC,
      dOut_RC: buffers.dXBC_RC,
      dRaw: dColumns.xBC,
      dWeight_CW: dBlock.convWeight_CW,
      dBias_C: dBlock.convBias_C,
      stateGradient: stateGradient("taps", layer),
    });

    device.matmul({ m: rows, n: model.dModel, k: dInProj, a: dProjected_RJ, b: block.inProj_JD, out: dNormed_RD });
    device.addNormBackward({
      rows,
      width: model.dModel,
      sum_RD: l.sum_RD,
      weight_D: block.norm_D,
      inverseRms_R: l.inverseRms_R,
      dOut_RD: dNormed_RD,
      dSum_RD,
      accumulate: true,
      dWeight_D: dBlock.norm_D,
      out_RD: normed_RD,
    });
    device.matmul({
      m: dInProj,
      n: model.dModel,
      k: rows,
      a: dProjected_RJ,
      transposeA: true,
      b: normed_RD,
      out: dBlock.inProj_JD,
    });
  }

  // A tied embedding already holds the head's gradient.
  if (!model.tieEmbeddings) device.fill(gradients.embedding_VD, 0);
  device.scatterAddRows({
    rows,
    width: model.dModel,
    table_VD: gradients.embedding_VD,
    ids_R: segment.tokens_R,
    rows_RD: dSum_RD,
  });
}

/** What {@link forward} left in the buffers that layers share. */
function computeAgain<F, I>(m: Mamba2<F, I>, segment: TokenSegment<I>, saved: ForwardBuffers<F>, layer: number): void {
  const { device, model, parameters } = m;
  const { convDim, dInner } = modelWidths(model);
  const l = saved.layers[layer]!;
  const block = parameters.blocks[layer]!;
  if (l.again === "nothing") return;
  const calls = layerCalls(m, segment, block, l, saved.normed_RD);
  if (l.again === "layer") {
    device.addNorm({
      rows: segment.lanes * segment.tokens,
      width: model.dModel,
      eps: model.rmsEps,
      residual_RD: l.sum_RD,
      weight_D: block.norm_D,
      sum_RD: l.sum_RD,
      out_RD: saved.normed_RD,
      inverseRms_R: l.inverseRms_R,
    });
    device.matmul(calls.project);
  }
  device.conv({ ...calls.conv, state: { data: l.taps_BWC, stride: (model.dConv - 1) * convDim }, keepState: true });
  if (l.again !== "layer") return;
  device.timeSteps(calls.timeSteps);
  device.scan({ ...calls.scan, state: { data: l.chunkStates_BKHPN, stride: dInner * model.dState }, keepState: true });
}
