import { SLICE_BLOCK_FLOATS } from "@segue/core";
import type {
  AdamWArgs,
  AddNormArgs,
  AddNormBackwardArgs,
  HeadLossArgs,
  MatmulArgs,
  RowsArgs,
  StateStatisticsArgs,
} from "../device.js";

type F = Float64Array;
type I = Int32Array;

export function gatherRows({ rows, width, table_VD, ids_R, rows_RD }: RowsArgs<F, I>): void {
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < width; i++) rows_RD[r * width + i] = table_VD[ids_R[r]! * width + i]!;
  }
}

export function scatterAddRows({ rows, width, table_VD, ids_R, rows_RD }: RowsArgs<F, I>): void {
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < width; i++) table_VD[ids_R[r]! * width + i]! += rows_RD[r * width + i]!;
  }
}

export function matmul({ m, n, k, a, b, out, transposeA, transposeB, accumulate }: MatmulArgs<F>): void {
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = accumulate ? out[i * n + j]! : 0;
      for (let l = 0; l < k; l++) sum += a[transposeA ? l * m + i : i * k + l]! * b[transposeB ? j * k + l : l * n + j]!;
      out[i * n + j] = sum;
    }
  }
}

export function addNorm({ rows, width, eps, residual_RD, delta_RD, weight_D, sum_RD, out_RD, inverseRms_R }: AddNormArgs<F>): void {
  for (let r = 0; r < rows; r++) {
    let squares = 0;
    for (let i = 0; i < width; i++) {
      const x = residual_RD[r * width + i]! + (delta_RD ? delta_RD[r * width + i]! : 0);
      sum_RD[r * width + i] = x;
      squares += x * x;
    }
    const inverse = 1 / Math.sqrt(squares / width + eps);
    inverseRms_R[r] = inverse;
    for (let i = 0; i < width; i++) out_RD[r * width + i] = sum_RD[r * width + i]! * inverse * weight_D[i]!;
  }
}

/** With q = 1 / rms: out = x q w, so dx = q w dout - x q^3 mean(x w dout). */
export function addNormBackward(args: AddNormBackwardArgs<F>): void {
  const { rows, width, sum_RD, weight_D, inverseRms_R, dOut_RD, dSum_RD, accumulate, dWeight_D, out_RD } = args;
  dWeight_D.fill(0, 0, width);
  for (let r = 0; r < rows; r++) {
    const inverse = inverseRms_R[r]!;
    let dot = 0;
    for (let i = 0; i < width; i++) dot += sum_RD[r * width + i]! * weight_D[i]! * dOut_RD[r * width + i]!;
    for (let i = 0; i < width; i++) {
      const at = r * width + i;
      const x = sum_RD[at]!;
      const dOut = dOut_RD[at]!;
      dWeight_D[i]! += dOut * x * inverse;
      out_RD[at] = x * inverse * weight_D[i]!;
      const dx = inverse * weight_D[i]! * dOut - (x * inverse ** 3 * dot) / width;
      dSum_RD[at] = accumulate ? dSum_RD[at]! + dx : dx;
    }
  }
}

/** loss = log(sum exp(logits)) - logits[label]; dlogits = weight (softmax - onehot). */
export function headLoss({ rows, width, vocab, hidden_RD, table_VD, labels_R, losses_R, gradient }: HeadLossArgs<F, I>): void {
  gradient?.dTable_VD.fill(0, 0, vocab * width);
  const logits_V = new Float64Array(vocab);
  for (let r = 0; r < rows; r++) {
    for (let v = 0; v < vocab; v++) {
      let logit = 0;
      for (let i = 0; i < width; i++) logit += hidden_RD[r * width + i]! * table_VD[v * width + i]!;
      logits_V[v] = logit;
    }
    const largest = logits_V.reduce((a, b) => Math.max(a, b));
    const total = logits_V.reduce((sum, logit) => sum + Math.exp(logit - largest), 0);
    losses_R[r] = Math.log(total) + largest - logits_V[labels_R[r]!]!;
    if (!gradient) continue;
    gradient.dHidden_RD.fill(0, r * width, (r + 1) * width);
    for (let v = 0; v < vocab; v++) {
      const dLogit = gradient.weights_R[r]! * (Math.exp(logits_V[v]! - largest) / total - (v === labels_R[r] ? 1 : 0));
      for (let i = 0; i < width; i++) {
        gradient.dHidden_RD[r * width + i]! += dLogit * table_VD[v * width + i]!;
        gradient.dTable_VD[v * width + i]! += dLogit * hidden_RD[r * width + i]!;
      }
    }
  }
}

export function add(addend: F, sum: F): void {
  for (let i = 0; i < sum.length; i++) sum[i]! += addend[i]!;
}

export function sumOfSquares(floats: F): number {
  const squares = new Float64Array(2 * Math.ceil(floats.length / SLICE_BLOCK_FLOATS));
  squaresOfBlocks(floats, squares);
  return sumOfBlocks(squares);
}

/** The first number of each pair; nothing else is in the second. */
export function squaresOfBlocks(floats: F, into: F): void {
  for (let begin = 0; begin < floats.length; begin += SLICE_BLOCK_FLOATS) {
    const block = floats.subarray(begin, begin + SLICE_BLOCK_FLOATS);
    into.set([block.reduce((sum, x) => sum + x * x, 0), 0], 2 * (begin / SLICE_BLOCK_FLOATS));
  }
}

export function sumOfBlocks(squares: F): number {
  return squares.reduce((sum, block) => sum + block, 0);
}

/** Decoupled weight decay (Loshchilov and Hutter 2019). */
export function adamW(args: AdamWArgs<F>): void {
  const { parameters, gradient, firstMoment, secondMoment, gradientScale, learningRate, beta1, beta2, epsilon, weightDecay, step } =
    args;
  for (let i = 0; i < parameters.length; i++) {
    const g = gradient[i]! * gradientScale;
    const first = beta1 * firstMoment[i]! + (1 - beta1) * g;
    const second = beta2 * secondMoment[i]! + (1 - beta2) * g * g;
    firstMoment[i] = first;
    secondMoment[i] = second;
    const update = first / (1 - beta1 ** step) / (Math.sqrt(second / (1 - beta2 ** step)) + epsilon);
    parameters[i]! -= learningRate * (update + weightDecay * parameters[i]!);
  }
}

export function stateStatistics({ lanes, heads, size, state, out }: StateStatisticsArgs<F>): void {
  for (let b = 0; b < lanes; b++) {
    for (let h = 0; h < heads; h++) {
      const start = b * state.stride + h * size;
      const values = state.data.subarray(start, start + size);
      const mean = values.reduce((sum, x) => sum + x, 0) / size;
      const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (size - 1);
      const rms = Math.sqrt(sumOfSquares(values) / size);
      const largest = values.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
      out.set([mean, variance, rms, largest], (b * heads + h) * 4);
    }
  }
}
