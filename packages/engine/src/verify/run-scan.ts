import type { Device } from "../devices/device.js";
import { SCAN_INPUTS, type ScanCase, type ScanCaseShape, type ScanInput, type ScanInputs, type ScanResults } from "./scan-case.js";

/** Tokens per chunk where a device works in chunks. */
const CHUNK = 64;

const DT_LIMITS = { min: 0, max: Infinity };

/** The part of a case that one segment holds, on the device. */
interface ScanSegment<F> {
  readonly start: number;
  readonly tokens: number;
  readonly xBC_RC: F;
  readonly rawDt_RH: F;
  readonly dt_RH: F;
  readonly chunkStates_BKHPN: F;
}

/**
 * Runs a case forward and backward on a device, in segments of `segmentTokens`. The state goes from each to the next and its gradient all
 * the way back, so that the results do not depend on the cut.
 */
export function runScan<F, I>(device: Device<F, I>, scanCase: ScanCase, segmentTokens: number): ScanResults {
  const { shape, inputs } = scanCase;
  const { lanes, heads, headDim, dState, groups } = shape;
  const widths = { x: heads * headDim, B: groups * dState, C: groups * dState };
  const channels = widths.x + widths.B + widths.C;
  const offsets = { x: 0, B: widths.x, C: widths.x + widths.B };
  const stateFloats = heads * headDim * dState;
  const put = (values: Float32Array): F => {
    const floats = device.floats(values.length);
    device.upload(values, floats);
    return floats;
  };
  const get = (floats: F, length: number): Float32Array => {
    const values = new Float32Array(length);
    device.download(floats, values);
    return values;
  };

  const aLog_H = put(inputs.A.map((a) => Math.log(-a)));
  const [skip_H, bias_H] = [put(inputs.D), put(inputs.dt_bias)];
  const state = { data: put(inputs.initial_state), stride: stateFloats };
  const scanShape = { heads, headDim, dState, groups, chunk: CHUNK };
  const y = new Float32Array(inputs.x.length);
  const segments: ScanSegment<F>[] = [];
  for (let start = 0; start < shape.tokens; start += segmentTokens) {
    const tokens = Math.min(segmentTokens, shape.tokens - start);
    const rows = lanes * tokens;
    const xBC_RC = new Float32Array(rows * channels);
    for (const name of ["x", "B", "C"] as const) {
      const part = rowsOf(inputs[name], shape, start, tokens);
      for (let r = 0; r < rows; r++) {
        xBC_RC.set(part.subarray(r * widths[name], (r + 1) * widths[name]), r * channels + offsets[name]);
      }
    }
    const segment: ScanSegment<F> = {
      ...{ start, tokens, xBC_RC: put(xBC_RC), rawDt_RH: put(rowsOf(inputs.dt, shape, start, tokens)) },
      dt_RH: device.floats(rows * heads),
      chunkStates_BKHPN: device.floats(lanes * Math.ceil(tokens / CHUNK) * stateFloats),
    };
    const raw = { data: segment.rawDt_RH, first: 0, stride: heads };
    device.timeSteps({ rows, heads, ...DT_LIMITS, raw, bias_H, dt_RH: segment.dt_RH });
    const y_RI = device.floats(rows * widths.x);
    device.scan({ lanes, ...scanShape, ...segment, aLog_H, skip_H, state, y_RI });
    putRows(get(y_RI, rows * widths.x), y, shape, start, tokens);
    segments.push(segment);
  }

  const finalState = get(state.data, lanes * stateFloats);
  const gradients = zeroGradients(inputs);
  const stateGradient = { data: put(scanCase.weightFinalState), stride: stateFloats };
  for (const segment of segments.reverse()) {
    const { start, tokens } = segment;
    const rows = lanes * tokens;
    const [dXBC_RC, dDt_RH, dRaw_RH] = [device.floats(rows * channels), device.floats(rows * heads), device.floats(rows * heads)];
    const [dALog_H, dSkip_H, dBias_H] = [device.floats(heads), device.floats(heads), device.floats(heads)];
    device.scanBackward({
      ...{ lanes, ...scanShape, ...segment, aLog_H, skip_H, stateGradient, dXBC_RC, dDt_RH, dALog_H, dSkip_H },
      dY_RI: put(rowsOf(scanCase.weightY, shape, start, tokens)),
      dChunkStates_BKHPN: device.floats(lanes * Math.ceil(tokens / CHUNK) * stateFloats),
    });
    const [raw, dRaw] = [segment.rawDt_RH, dRaw_RH].map((data) => ({ data, first: 0, stride: heads })) as [Raw<F>, Raw<F>];
    device.timeStepsBackward({ rows, heads, ...DT_LIMITS, raw, bias_H, dt_RH: segment.dt_RH, dDt_RH, dRaw, dBias_H });

    const dXBC = get(dXBC_RC, rows * channels);
    for (const name of ["x", "B", "C"] as const) {
      const part = new Float32Array(rows * widths[name]);
      for (let r = 0; r < rows; r++) {
        const first = r * channels + offsets[name];
        part.set(dXBC.subarray(first, first + widths[name]), r * widths[name]);
      }
      putRows(part, gradients[name], shape, start, tokens);
    }
    putRows(get(dRaw_RH, rows * heads), gradients.dt, shape, start, tokens);
    // A = -exp(aLog), so dA = dALog / A.
    addTo(
      gradients.A,
      get(dALog_H, heads).map((gradient, h) => gradient / inputs.A[h]!),
    );
    addTo(gradients.D, get(dSkip_H, heads));
    addTo(gradients.dt_bias, get(dBias_H, heads));
  }
  gradients.initial_state.set(get(stateGradient.data, lanes * stateFloats));
  return { y, finalState, gradients };
}

interface Raw<F> {
  readonly data: F;
  readonly first: number;
  readonly stride: number;
}

function zeroGradients(inputs: ScanInputs): Record<ScanInput, Float32Array> {
  return Object.fromEntries(SCAN_INPUTS.map((name) => [name, new Float32Array(inputs[name].length)])) as Record<
    ScanInput,
    Float32Array
  >;
}

/** Tokens [start, start + tokens) of every lane; `values` is [lanes, tokens, ...]. */
function rowsOf(values: Float32Array, shape: ScanCaseShape, start: number, tokens: number): Float32Array {
  const width = values.length / (shape.lanes * shape.tokens);
  const part = new Float32Array(shape.lanes * tokens * width);
  for (let lane = 0; lane < shape.lanes; lane++) {
    const first = (lane * shape.tokens + start) * width;
    part.set(values.subarray(first, first + tokens * width), lane * tokens * width);
  }
  return part;
}

/** Puts a {@link rowsOf} back. */
function putRows(part: Float32Array, values: Float32Array, shape: ScanCaseShape, start: number, tokens: number): void {
  const width = values.length / (shape.lanes * shape.tokens);
  for (let lane = 0; lane < shape.lanes; lane++) {
    values.set(part.subarray(lane * tokens * width, (lane + 1) * tokens * width), (lane * shape.tokens + start) * width);
  }
}

function addTo(sum: Float32Array, addend: Float32Array): void {
  for (let i = 0; i < sum.length; i++) sum[i] = sum[i]! + addend[i]!;
}
