import type { Rank, Tensor, Tensor1D, Tensor3D, Tensor4D } from "@tensorflow/tfjs";
import type { Operations } from "./operations.js";
import type { ScanMasks } from "./segment-masks.js";

/**
 * Letters of the paper (paper section 6 of Mamba-2, "SSD"): B lanes, T tokens (whole chunks), K chunks per lane, Z = B K, Q tokens
 * per chunk, H heads, P width of a head, N state size, G groups of heads that share B and C, M = H P / G columns of a group.
 */
export interface ScanSizes {
  readonly lanes: number;
  readonly chunksPerLane: number;
  readonly chunk: number;
  readonly heads: number;
  readonly headDim: number;
  readonly dState: number;
  readonly groups: number;
}

export interface ScanInputs {
  /** Any shape of B T H P elements, row-major; likewise below. */
  readonly x_BTHP: Tensor;
  readonly b_BTGN: Tensor;
  readonly c_BTGN: Tensor;
  /** After softplus; 0 leaves the state as it is. */
  readonly dt_BTH: Tensor;
  /** Negative. */
  readonly a_H: Tensor1D;
  readonly state_BHPN: Tensor;
}

/**
 * The chunked form of h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T, y_t = h_t C_t. Inside a chunk every token attends to its
 * predecessors through C_t . B_s and the decay between them; from chunk to chunk only the state passes on. The decay between two tokens
 * is the exponential of a sum over those between them, never of a difference of sums: where a head forgets fast, large sums would cancel,
 * and so would their gradients.
 * @returns y as [Z, Q, H, P] and the state after the last token, [B, H, P, N]
 */
export function ssdScan(
  { tf, batchedProduct }: Operations,
  sizes: ScanSizes,
  inputs: ScanInputs,
  masks: ScanMasks,
): { y_ZQHP: Tensor4D; state_BHPN: Tensor4D } {
  const { lanes, chunksPerLane, chunk, heads, headDim, dState, groups } = sizes;
  const Z = lanes * chunksPerLane;
  const headsPerGroup = heads / groups;
  const M = headsPerGroup * headDim;

  /** [Z, Q, G * width] to one matrix per chunk and group, [Z G, Q, width]; free for a single group. */
  const byGroup = (values: Tensor, width: number): Tensor3D => {
    if (groups === 1) return tf.reshape(values, [Z, chunk, width]);
    return tf.reshape(tf.transpose(tf.reshape(values, [Z, chunk, groups, width]), [0, 2, 1, 3]), [Z * groups, chunk, width]);
  };

  const dt_ZQH = tf.reshape(inputs.dt_BTH, [Z, chunk, heads]);
  const x_ZQHP = tf.mul(tf.reshape(inputs.x_BTHP, [Z, chunk, heads, headDim]), tf.reshape(dt_ZQH, [Z, chunk, heads, 1]));
  const b = byGroup(inputs.b_BTGN, dState);
  const c = byGroup(inputs.c_BTGN, dState);
  const log_ZHQ = tf.transpose(tf.mul(dt_ZQH, inputs.a_H), [0, 2, 1]);
  // Summed along the last axis: along any other, the gradient of TensorFlow.js 4.22 comes out transposed.
  const sinceStart_ZQH = tf.transpose(tf.cumsum(log_ZHQ, 2), [0, 2, 1]);
  const untilEnd_ZQH = tf.transpose(tf.cumsum(log_ZHQ, 2, true, true), [0, 2, 1]);
  const total_Z1H = tf.slice(sinceStart_ZQH, [0, chunk - 1, 0], [Z, 1, heads]);

  // Within chunks: y_t += sum over s <= t of exp(a_{s+1} + ... + a_t) (C_t . B_s) dt_s x_s.
  const reach = tf.tensor(masks.reach_ZQQ, [masks.reach_ZQQ.length / chunk ** 2, 1, chunk, chunk]);
  const upTo_QQ = tf.linalg.bandPart(tf.ones([chunk, chunk]), -1, 0);
  const between_ZHQQ = tf.cumsum(tf.mul(tf.reshape(log_ZHQ, [Z, heads, 1, chunk]), upTo_QQ), 3, true, true);
  const decay_ZHQQ = tf.exp(tf.add(between_ZHQQ, reach));
  const scores = tf.reshape(batchedProduct(c, b, false, true), [Z * groups, 1, chunk, chunk]);
  const attention = tf.mul(tf.reshape(decay_ZHQQ, [Z * groups, headsPerGroup, chunk, chunk]), scores);
  const x_ZHQP = tf.transpose(x_ZQHP, [0, 2, 1, 3]);
  const within_ZHQP = tf.reshape(
    batchedProduct(tf.reshape(attention, [Z * heads, chunk, chunk]), tf.reshape(x_ZHQP, [Z * heads, chunk, headDim]), false, false),
    [Z, heads, chunk, headDim],
  );

  // What each chunk adds to the state: sum over s of exp(a_{s+1} + ... + a_Q) dt_s x_s B_s^T.
  const toEnd_ZQH = masked(tf.exp(untilEnd_ZQH), masks.reachesEnd_ZQ, [Z, chunk, 1]);
  const added = batchedProduct(b, byGroup(tf.mul(x_ZQHP, tf.reshape(toEnd_ZQH, [Z, chunk, heads, 1])), M), true, false);

  // From chunk to chunk: the state shrinks by the chunk's whole decay and takes in what the chunk added.
  const shrink_Z1H = masked(tf.exp(total_Z1H), masks.keepsState_Z, [Z, 1, 1]);
  const added_K = byChunk(added, groups * dState * M);
  const shrink_K = byChunk(shrink_Z1H, heads);
  const perHead = [lanes * groups, dState, headsPerGroup, headDim];
  let state = tf.reshape(tf.transpose(tf.reshape(inputs.state_BHPN, [lanes * groups, M, dState]), [0, 2, 1]), perHead);
  const starts = added_K.map((addition, k) => {
    const start = tf.reshape(state, [lanes, groups * dState * M]);
    const shrink = tf.reshape(shrink_K[k] as Tensor, [lanes * groups, 1, headsPerGroup, 1]);
    state = tf.add(tf.mul(state, shrink), tf.reshape(addition, perHead));
    return start;
  });

  // y_t += exp(a_1 + ... + a_t) C_t . (state at the start of the chunk).
  const start = tf.reshape<Rank.R3>(tf.stack(starts, 1), [Z * groups, dState, M]);
  const read = tf.reshape(batchedProduct(c, start, false, false), [Z, groups, chunk, M]);
  const read_ZQHP = tf.reshape(groups === 1 ? read : tf.transpose(read, [0, 2, 1, 3]), [Z, chunk, heads, headDim]);
  const fromStart_ZQH = masked(tf.exp(sinceStart_ZQH), masks.seesStart_ZQ, [Z, chunk, 1]);
  const across_ZQHP = tf.mul(read_ZQHP, tf.reshape(fromStart_ZQH, [Z, chunk, heads, 1]));

  const finalState = tf.transpose(tf.reshape(state, [lanes * groups, dState, M]), [0, 2, 1]);
  return {
    y_ZQHP: tf.add(tf.transpose(within_ZHQP, [0, 2, 1, 3]), across_ZQHP),
    state_BHPN: tf.reshape(finalState, [lanes, heads, headDim, dState]),
  };

  /** Of every chunk of a lane, [B, width]. */
  function byChunk(values: Tensor, width: number): Tensor[] {
    // The gradient of unstack fails for a single piece in TensorFlow.js 4.22.
    if (chunksPerLane === 1) return [tf.reshape(values, [lanes, width])];
    return tf.unstack(tf.reshape(values, [lanes, chunksPerLane, width]), 1);
  }

  function masked(values: Tensor, mask: Float32Array | undefined, shape: number[]): Tensor {
    return mask ? tf.mul(values, tf.tensor(mask, shape)) : values;
  }
}
