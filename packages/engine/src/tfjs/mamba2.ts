import { modelWidths, type ModelSpec } from "@segue/core";
import type { Rank, Tensor, Tensor1D, Tensor2D, Tensor3D } from "@tensorflow/tfjs";
import type { Operations } from "./operations.js";
import type { Parameters, RecurrentModel, SegmentInput, StateSlot } from "./recurrent-model.js";
import { convMasks, scanMasks, type ConvMasks, type ScanMasks } from "./segment-masks.js";
import { ssdScan } from "./ssd-scan.js";

/**
 * Mamba-2 as Hugging Face's `Mamba2ForCausalLM` computes it since 5.24, and the official code always: the gated norm works on each group.
 * B lanes, T tokens, R = B T rows, D model width, I inner width, J rows of the input projection [z (I) | x (I) | B | C | dt (H)],
 * C convolution channels [x | B | C], W taps, H heads, P width of a head, N state size, G groups.
 */
export function mamba2(operations: Operations, spec: ModelSpec): RecurrentModel {
  const { tf, linear, scaleRows, addToRows, embed } = operations;
  const { dInner, heads, convDim } = modelWidths(spec);
  const { layers, dModel, dState, headDim, groups, dConv, rmsEps } = spec;
  const carriedTaps = dConv - 1;
  const layerSlots = (part: StateSlot["part"], ...shape: number[]): StateSlot[] =>
    Array.from({ length: layers }, () => ({ part, shape }));

  const normRows = (x_RD: Tensor2D): Tensor2D => tf.mul(x_RD, tf.rsqrt(tf.add(tf.mean(tf.square(x_RD), 1, true), rmsEps)));
  const rmsNorm = (x_RD: Tensor2D, weight_D: Tensor1D): Tensor2D => scaleRows(normRows(x_RD), weight_D);
  /** Neighbouring columns of a row are normed in `groups` groups; the weight is the row's. */
  const groupNorm = (x_RI: Tensor2D, weight_I: Tensor1D): Tensor2D => {
    const normed = normRows(tf.reshape<Rank.R2>(x_RI, [-1, dInner / groups]));
    return scaleRows(tf.reshape<Rank.R2>(normed, [-1, dInner]), weight_I);
  };
  const silu = <T extends Tensor>(x: T): T => tf.mul(x, tf.sigmoid(x));

  /** out_t = bias + sum over w of weight_w in_{t - (W - 1) + w}, the rows before the segment carried in; then SiLU. */
  function causalConv(input_BTC: Tensor3D, taps_BWC: Tensor3D, weight_C1W: Tensor, bias_C: Tensor1D, masks: ConvMasks | undefined) {
    const [lanes, tokens] = input_BTC.shape;
    const rows = tf.concat([taps_BWC, input_BTC], 1);
    const weights_WC = tf.unstack(tf.transpose(tf.reshape(weight_C1W, [convDim, dConv]))) as Tensor1D[];
    const terms = weights_WC.map((weight_C, w) => {
      const age = carriedTaps - w;
      const shifted_BTC = age === 0 ? input_BTC : tf.slice(rows, [0, w, 0], [lanes, tokens, convDim]);
      const sees_BT = masks?.sees_BT[age - 1];
      const visible = sees_BT ? tf.mul(shifted_BTC, tf.tensor3d(sees_BT, [lanes, tokens, 1])) : shifted_BTC;
      return scaleRows(tf.reshape(visible, [lanes * tokens, convDim]), weight_C);
    });
    const last = tf.slice(rows, [0, tokens, 0], [lanes, carriedTaps, convDim]);
    return {
      out_RC: silu(addToRows(tf.addN(terms), bias_C)),
      taps_BWC: masks ? tf.mul(last, tf.tensor3d(masks.carried_BW, [lanes, carriedTaps, 1])) : last,
    };
  }

  interface Masks {
    readonly chunk: number;
    readonly scan: ScanMasks;
    readonly conv: ConvMasks | undefined;
  }

  function mixer(u_RD: Tensor2D, weight: (name: string) => Tensor, input: SegmentInput, ssm: Tensor, taps: Tensor, masks: Masks) {
    const { lanes, tokens } = input;
    const R = lanes * tokens;
    // Three products instead of one and three slices: the pieces of the weight are small, those of the product are not.
    const inProj_JD = weight("in_proj.weight") as Tensor2D;
    const project = (first: number, width: number): Tensor2D => linear(u_RD, tf.slice(inProj_JD, [first, 0], [width, dModel]));
    const z_RI = project(0, dInner);
    const xbc_BTC = tf.reshape<Rank.R3>(project(dInner, convDim), [lanes, tokens, convDim]);
    const dtRaw_RH = project(dInner + convDim, heads);

    const conv = causalConv(xbc_BTC, taps as Tensor3D, weight("conv1d.weight"), weight("conv1d.bias") as Tensor1D, masks.conv);
    const dt_RH = tf.softplus(tf.add(dtRaw_RH, weight("dt_bias")));

    // Padding to whole chunks with dt = 0: those tokens neither decay the state nor add to it.
    const chunksPerLane = Math.ceil(tokens / masks.chunk);
    const padded = (values_RA: Tensor): Tensor => {
      const missing = chunksPerLane * masks.chunk - tokens;
      if (missing === 0) return values_RA;
      return tf.pad(tf.reshape(values_RA, [lanes, tokens, -1]), [
        [0, 0],
        [0, missing],
        [0, 0],
      ]);
    };
    const x_RI = tf.slice(conv.out_RC, [0, 0], [R, dInner]);
    const scan = ssdScan(
      operations,
      { lanes, chunksPerLane, chunk: masks.chunk, heads, headDim, dState, groups },
      {
        x_BTHP: padded(x_RI),
        b_BTGN: padded(tf.slice(conv.out_RC, [0, dInner], [R, groups * dState])),
        c_BTGN: padded(tf.slice(conv.out_RC, [0, dInner + groups * dState], [R, groups * dState])),
        dt_BTH: padded(dt_RH),
        a_H: tf.neg(tf.exp(weight("A_log"))) as Tensor1D,
        state_BHPN: ssm,
      },
      masks.scan,
    );
    const scanned_BTI = tf.slice(tf.reshape(scan.y_ZQHP, [lanes, -1, dInner]), [0, 0, 0], [lanes, tokens, dInner]);
    const skip_I = tf.reshape<Rank.R1>(tf.mul(tf.reshape(weight("D"), [heads, 1]), tf.ones([1, headDim])), [dInner]);
    const y_RI = tf.add(tf.reshape<Rank.R2>(scanned_BTI, [R, dInner]), scaleRows(x_RI, skip_I));
    const gated_RI = groupNorm(tf.mul(y_RI, silu(z_RI)), weight("norm.weight") as Tensor1D);
    return { out_RD: linear(gated_RI, weight("out_proj.weight") as Tensor2D), ssm: scan.state_BHPN, taps: conv.taps_BWC };
  }

  return {
    slots: [...layerSlots("ssm", heads, headDim, dState), ...layerSlots("conv", carriedTaps, convDim)],

    forward(parameters, input, states) {
      const { lanes, tokens, resets_BT } = input;
      const chunk = Math.min(spec.chunk, tokens);
      const masks: Masks = {
        chunk,
        scan: scanMasks(lanes, tokens, chunk, resets_BT),
        conv: convMasks(lanes, tokens, dConv, resets_BT),
      };
      let residual_RD = embed(named(parameters, "backbone.embeddings.weight") as Tensor2D, input.tokens_BT);
      const ssm: Tensor[] = [];
      const taps: Tensor[] = [];
      for (let layer = 0; layer < layers; layer++) {
        const block = `backbone.layers.${layer}`;
        const u_RD = rmsNorm(residual_RD, named(parameters, `${block}.norm.weight`) as Tensor1D);
        const weight = (name: string): Tensor => named(parameters, `${block}.mixer.${name}`);
        const mixed = mixer(u_RD, weight, input, states[layer] as Tensor, states[layers + layer] as Tensor, masks);
        residual_RD = tf.add(residual_RD, mixed.out_RD);
        ssm.push(mixed.ssm);
        taps.push(mixed.taps);
      }
      return {
        hidden_RD: rmsNorm(residual_RD, named(parameters, "backbone.norm_f.weight") as Tensor1D),
        states: [...ssm, ...taps],
      };
    },

    logits(parameters, hidden_RD) {
      const head = spec.tieEmbeddings ? "backbone.embeddings.weight" : "lm_head.weight";
      return linear(hidden_RD, named(parameters, head) as Tensor2D);
    },
  };
}

function named(parameters: Parameters, name: string): Tensor {
  const tensor = parameters.get(name);
  if (!tensor) throw new Error(`no parameter ${name}`);
  return tensor;
}
