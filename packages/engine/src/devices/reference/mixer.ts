import type {
  ConvArgs,
  ConvBackwardArgs,
  GatedNormArgs,
  GatedNormBackwardArgs,
  ScaledTimeStepsArgs,
  TimeStepsBackwardArgs,
} from "../device.js";

type F = Float64Array;
type I = Int32Array;

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const silu = (x: number): number => x * sigmoid(x);
const siluSlope = (x: number): number => sigmoid(x) * (1 + x * (1 - sigmoid(x)));

/**
 * Where the taps of token t are read: a row of the segment, a row of the carried taps (negative), or nowhere (another document). The
 * token after the segment starts no document that is known here.
 */
function tapSources(
  args: { tokens: number; taps: number; resets_R?: I | undefined },
  b: number,
  t: number,
): (number | undefined)[] {
  const sources: (number | undefined)[] = [];
  let reachable = true;
  for (let back = 0; back < args.taps; back++) {
    const source = t - back;
    sources.unshift(reachable ? source : undefined);
    if (source >= 0 && source < args.tokens && args.resets_R?.[b * args.tokens + source]) reachable = false;
  }
  return sources;
}

export function conv(args: ConvArgs<F, I>): void {
  const { lanes, tokens, channels, taps, raw, weight_CW, bias_C, state, savedTaps_BWC, out_RC } = args;
  const carried = taps - 1;
  for (let b = 0; b < lanes; b++) {
    const before_WC = state.data.slice(b * state.stride, b * state.stride + carried * channels);
    savedTaps_BWC?.set(before_WC, b * carried * channels);
    const input = (t: number, c: number): number =>
      t < 0 ? before_WC[(t + carried) * channels + c]! : raw.data[(b * tokens + t) * raw.stride + raw.first + c]!;
    for (let t = 0; t < tokens; t++) {
      const sources = tapSources(args, b, t);
      for (let c = 0; c < channels; c++) {
        let sum = bias_C[c]!;
        sources.forEach((source, k) => {
          if (source !== undefined) sum += weight_CW[c * taps + k]! * input(source, c);
        });
        out_RC[(b * tokens + t) * channels + c] = silu(sum);
      }
    }
    // The taps of a token after the segment, less the token itself.
    tapSources(args, b, tokens)
      .slice(0, carried)
      .forEach((source, k) => {
        for (let c = 0; c < channels; c++) {
          state.data[b * state.stride + k * channels + c] = source === undefined ? 0 : input(source, c);
        }
      });
  }
}

export function convBackward(args: ConvBackwardArgs<F, I>): void {
  const {
    lanes,
    tokens,
    channels,
    taps,
    raw,
    weight_CW,
    bias_C,
    savedTaps_BWC,
    dOut_RC,
    dRaw,
    dWeight_CW,
    dBias_C,
    stateGradient,
  } = args;
  const carried = taps - 1;
  dWeight_CW.fill(0, 0, channels * taps);
  dBias_C.fill(0, 0, channels);
  for (let b = 0; b < lanes; b++) {
    const before_WC = savedTaps_BWC.subarray(b * carried * channels, (b + 1) * carried * channels);
    const dBefore_WC = new Float64Array(carried * channels);
    const input = (t: number, c: number): number =>
      t < 0 ? before_WC[(t + carried) * channels + c]! : raw.data[(b * tokens + t) * raw.stride + raw.first + c]!;
    const addToInput = (t: number, c: number, value: number): void => {
      if (t < 0) dBefore_WC[(t + carried) * channels + c]! += value;
      else dRaw.data[(b * tokens + t) * dRaw.stride + dRaw.first + c]! += value;
    };
    for (let t = 0; t < tokens; t++) {
      for (let c = 0; c < channels; c++) dRaw.data[(b * tokens + t) * dRaw.stride + dRaw.first + c] = 0;
    }
    for (let t = 0; t < tokens; t++) {
      const sources = tapSources(args, b, t);
      for (let c = 0; c < channels; c++) {
        let sum = bias_C[c]!;
        sources.forEach((source, k) => {
          if (source !== undefined) sum += weight_CW[c * taps + k]! * input(source, c);
        });
        const dSum = dOut_RC[(b * tokens + t) * channels + c]! * siluSlope(sum);
        dBias_C[c]! += dSum;
        sources.forEach((source, k) => {
          if (source === undefined) return;
          dWeight_CW[c * taps + k]! += dSum * input(source, c);
          addToInput(source, c, dSum * weight_CW[c * taps + k]!);
        });
      }
    }
    if (!stateGradient) continue;
    tapSources(args, b, tokens)
      .slice(0, carried)
      .forEach((source, k) => {
        for (let c = 0; c < channels; c++) {
          if (source !== undefined) addToInput(source, c, stateGradient.data[b * stateGradient.stride + k * channels + c]!);
        }
      });
    stateGradient.data.set(dBefore_WC, b * stateGradient.stride);
  }
}

/** softplus as PyTorch computes it: the identity above 20. */
const softplus = (x: number): number => (x > 20 ? x : Math.log1p(Math.exp(x)));

export function timeSteps({ rows, heads, min, max, raw, bias_H, scale = 1, dt_RH }: ScaledTimeStepsArgs<F>): void {
  for (let r = 0; r < rows; r++) {
    for (let h = 0; h < heads; h++) {
      const dt = softplus(raw.data[r * raw.stride + raw.first + h]! + bias_H[h]!);
      dt_RH[r * heads + h] = Math.min(Math.max(dt, min), max) * scale;
    }
  }
}

export function timeStepsBackward({ rows, heads, min, max, raw, bias_H, dDt_RH, dRaw, dBias_H }: TimeStepsBackwardArgs<F>): void {
  dBias_H.fill(0, 0, heads);
  for (let r = 0; r < rows; r++) {
    for (let h = 0; h < heads; h++) {
      const x = raw.data[r * raw.stride + raw.first + h]! + bias_H[h]!;
      const dt = softplus(x);
      const slope = dt < min || dt > max ? 0 : x > 20 ? 1 : sigmoid(x);
      const dx = dDt_RH[r * heads + h]! * slope;
      dRaw.data[r * dRaw.stride + dRaw.first + h] = dx;
      dBias_H[h]! += dx;
    }
  }
}

export function gatedNorm(args: GatedNormArgs<F>): void {
  const { rows, width, groupWidth, normBeforeGate, eps, y_RI, gate, weight_I, out_RI, inverseRms } = args;
  const groups = width / groupWidth;
  for (let r = 0; r < rows; r++) {
    for (let g = 0; g < groups; g++) {
      const gateOf = (i: number): number => silu(gate.data[r * gate.stride + gate.first + g * groupWidth + i]!);
      const normed = (i: number): number => y_RI[r * width + g * groupWidth + i]! * (normBeforeGate ? 1 : gateOf(i));
      let squares = 0;
      for (let i = 0; i < groupWidth; i++) squares += normed(i) ** 2;
      const inverse = 1 / Math.sqrt(squares / groupWidth + eps);
      inverseRms[r * groups + g] = inverse;
      for (let i = 0; i < groupWidth; i++) {
        const out = normed(i) * inverse * weight_I[g * groupWidth + i]!;
        out_RI[r * width + g * groupWidth + i] = out * (normBeforeGate ? gateOf(i) : 1);
      }
    }
  }
}

export function gatedNormBackward(args: GatedNormBackwardArgs<F>): void {
  const { rows, width, groupWidth, normBeforeGate, y_RI, gate, weight_I, inverseRms, dOut_RI, dY_RI, dGate, dWeight_I, out_RI } =
    args;
  const groups = width / groupWidth;
  dWeight_I.fill(0, 0, width);
  for (let r = 0; r < rows; r++) {
    for (let g = 0; g < groups; g++) {
      const inverse = inverseRms[r * groups + g]!;
      const at = r * width + g * groupWidth;
      const z = (i: number): number => gate.data[r * gate.stride + gate.first + g * groupWidth + i]!;
      const normed = (i: number): number => y_RI[at + i]! * (normBeforeGate ? 1 : silu(z(i)));
      /** Gradient at the norm's output before the weight. */
      const dNormOut = (i: number): number => dOut_RI[at + i]! * (normBeforeGate ? silu(z(i)) : 1) * weight_I[g * groupWidth + i]!;
      let dot = 0;
      for (let i = 0; i < groupWidth; i++) dot += normed(i) * dNormOut(i);
      const results = Array.from({ length: groupWidth }, (_, i) => {
        const weight = weight_I[g * groupWidth + i]!;
        const dOut = dOut_RI[at + i]!;
        const x = normed(i);
        const dNormed = inverse * dNormOut(i) - (x * inverse ** 3 * dot) / groupWidth;
        dWeight_I[g * groupWidth + i]! += dOut * x * inverse * (normBeforeGate ? silu(z(i)) : 1);
        return {
          out: x * inverse * weight * (normBeforeGate ? silu(z(i)) : 1),
          dY: normBeforeGate ? dNormed : dNormed * silu(z(i)),
          dZ: (normBeforeGate ? dOut * x * inverse * weight : dNormed * y_RI[at + i]!) * siluSlope(z(i)),
        };
      });
      // Written last: dY may be the memory of dOut.
      results.forEach(({ out, dY, dZ }, i) => {
        out_RI[at + i] = out;
        dY_RI[at + i] = dY;
        dGate.data[r * dGate.stride + dGate.first + g * groupWidth + i] = dZ;
      });
    }
  }
}
