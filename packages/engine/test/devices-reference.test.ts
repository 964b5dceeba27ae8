import assert from "node:assert/strict";
import { laneStateFloats, parameterLayout, randomStream, type ModelSpec } from "@segue/core";
import { referenceDevice as device } from "../src/devices/reference/reference-device.js";
import { takeBackward, takeForward } from "../src/native/buffers.js";
import { backward, forward } from "../src/native/mamba2.js";
import { modelTensors } from "../src/native/parameters.js";
import { someResets } from "./devices-support.js";
import { noise, noisyParameters, randomTokens } from "./native-support.js";

type Inputs = Record<string, Float64Array>;

const copyOf = (inputs: Inputs): Inputs => Object.fromEntries(Object.entries(inputs).map(([name, x]) => [name, x.slice()]));
const wide = (label: string, length: number, scale?: number, mean?: number): Float64Array =>
  Float64Array.from(noise(label, length, scale, mean));
const dot = (a: Float64Array, b: Float64Array): number => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
/** A fresh buffer that holds NaN. */
const poison = (length: number): Float64Array => new Float64Array(length).fill(NaN);

/** Compares some entries of each gradient with central differences of `loss`. */
function assertGradients(inputs: Inputs, loss: (inputs: Inputs) => number, gradients: Inputs): void {
  const step = 1e-5;
  const random = randomStream(3, "entries");
  for (const [name, gradient] of Object.entries(gradients)) {
    const entries = new Set(Array.from({ length: 12 }, () => random.below(gradient.length)));
    for (const i of entries) {
      const lossAt = (shift: number): number => {
        const moved = copyOf(inputs);
        moved[name]![i]! += shift;
        return loss(moved);
      };
      const slope = (lossAt(step) - lossAt(-step)) / (2 * step);
      assert.ok(Math.abs(slope - gradient[i]!) < 1e-7 * (1 + Math.abs(slope)), `${name}[${i}]: ${gradient[i]} for ${slope}`);
    }
  }
}

describe("reference device against the sums that recurrences stand for", () => {
  it("scans with reduced retention and insertion, resets and groups", () => {
    const [lanes, tokens, heads, headDim, dState, groups] = [2, 9, 4, 3, 2, 2];
    const [rows, inner] = [lanes * tokens, heads * headDim];
    const [width, stride] = [inner + 2 * groups * dState, inner * dState];
    const [logRetention, insertion] = [-0.2, 0.6];
    const xBC_RC = wide("xBC", rows * width);
    const dt_RH = wide("dt", rows * heads, 0.3).map(Math.abs);
    const [aLog_H, skip_H] = [wide("aLog", heads, 0.5), wide("skip", heads)];
    const [initial, y_RI] = [wide("state", lanes * stride), poison(rows * inner)];
    const resets_R = someResets("closed form", rows, 6, [12]);
    const state = { data: initial.slice(), stride };
    device.scan({
      ...{ lanes, tokens, heads, headDim, dState, groups, chunk: 4, resets_R, logRetention, insertion },
      ...{ xBC_RC, dt_RH, aLog_H, skip_H, state, chunkStates_BKHPN: poison(lanes * 3 * stride), y_RI },
    });
    const at = (row: number, column: number): number => xBC_RC[row * width + column]!;
    for (let lane = 0; lane < lanes; lane++) {
      for (let h = 0; h < heads; h++) {
        const b = inner + Math.floor((h * groups) / heads) * dState;
        /** What is left of token `from` (-1: the initial state) after token `to`: 0 across a document's start. */
        const left = (from: number, to: number): number => {
          let logDecay = 0;
          for (let t = from + 1; t <= to; t++) {
            if (resets_R[lane * tokens + t]) return 0;
            logDecay += logRetention - Math.exp(aLog_H[h]!) * dt_RH[(lane * tokens + t) * heads + h]!;
          }
          return Math.exp(logDecay);
        };
        for (let p = 0; p < headDim; p++) {
          const cell = (t: number, n: number): number => {
            let sum = left(-1, t) * initial[lane * stride + (h * headDim + p) * dState + n]!;
            for (let s = 0; s <= t; s++) {
              const row = lane * tokens + s;
              sum += left(s, t) * insertion * dt_RH[row * heads + h]! * at(row, h * headDim + p) * at(row, b + n);
            }
            return sum;
          };
          for (let t = 0; t < tokens; t++) {
            const row = lane * tokens + t;
            let y = skip_H[h]! * at(row, h * headDim + p);
            for (let n = 0; n < dState; n++) y += cell(t, n) * at(row, b + groups * dState + n);
            assert.ok(Math.abs(y - y_RI[row * inner + h * headDim + p]!) < 1e-12);
          }
          for (let n = 0; n < dState; n++) {
            const found = state.data[lane * stride + (h * headDim + p) * dState + n]!;
            assert.ok(Math.abs(cell(tokens - 1, n) - found) < 1e-12);
          }
        }
      }
    }
  });
});

describe("reference device against finite differences", () => {
  it("differentiates the scan with states in and out, resets, padding and groups", () => {
    const [lanes, tokens, heads, headDim, dState, groups] = [2, 9, 4, 3, 2, 2];
    const rows = lanes * tokens;
    const inner = heads * headDim;
    const stride = inner * dState;
    const shape = { lanes, tokens, heads, headDim, dState, groups, chunk: 4, resets_R: someResets("fd", rows, 6, [13]) };
    const inputs = {
      xBC: wide("xBC", rows * (inner + 2 * groups * dState)),
      dt: wide("dt", rows * heads, 0.3).map((x, i) => (i % 7 === 0 ? 0 : Math.abs(x) + 0.01)),
      aLog: wide("aLog", heads, 0.5),
      skip: wide("skip", heads),
      state: wide("state", lanes * stride),
    };
    const [onY, onState] = [wide("onY", rows * inner), wide("onState", lanes * stride)];
    const chunkStates_BKHPN = poison(lanes * 3 * stride);
    const run = (given: Inputs): { y: Float64Array; state: Float64Array } => {
      const [y_RI, data] = [poison(rows * inner), given.state!.slice()];
      const named = { xBC_RC: given.xBC!, dt_RH: given.dt!, aLog_H: given.aLog!, skip_H: given.skip! };
      device.scan({ ...shape, ...named, state: { data, stride }, chunkStates_BKHPN, y_RI });
      return { y: y_RI, state: data };
    };
    const loss = (given: Inputs): number => {
      const { y, state } = run(given);
      return dot(y, onY) + dot(state, onState);
    };
    run(inputs);
    const gradients = {
      ...{ xBC: poison(inputs.xBC.length), dt: poison(rows * heads), aLog: poison(heads), skip: poison(heads) },
      state: onState.slice(),
    };
    device.scanBackward({
      ...{
        ...shape,
        xBC_RC: inputs.xBC,
        dt_RH: inputs.dt,
        aLog_H: inputs.aLog,
        skip_H: inputs.skip,
        chunkStates_BKHPN,
        dY_RI: onY,
      },
      ...{ dXBC_RC: gradients.xBC, dDt_RH: gradients.dt, dALog_H: gradients.aLog, dSkip_H: gradients.skip },
      ...{ dChunkStates_BKHPN: poison(lanes * 3 * stride), stateGradient: { data: gradients.state, stride } },
    });
    assertGradients(inputs, loss, gradients);
  });

  it("differentiates the convolution with taps in and out and resets", () => {
    for (const tokens of [2, 9]) {
      const [lanes, channels, taps] = [2, 3, 4];
      const rows = lanes * tokens;
      const stride = (taps - 1) * channels;
      const shape = { lanes, tokens, channels, taps, resets_R: someResets("conv", rows, 5) };
      const inputs = {
        ...{ raw: wide("raw", rows * channels), weight: wide("weight", channels * taps), bias: wide("bias", channels) },
        state: wide("taps", lanes * stride),
      };
      const [onOut, onState] = [wide("onOut", rows * channels), wide("onTaps", lanes * stride)];
      const savedTaps_BWC = poison(lanes * stride);
      const loss = (given: Inputs): number => {
        const [out_RC, data] = [poison(rows * channels), given.state!.slice()];
        const raw = { data: given.raw!, first: 0, stride: channels };
        device.conv({
          ...shape,
          raw,
          weight_CW: given.weight!,
          bias_C: given.bias!,
          state: { data, stride },
          savedTaps_BWC,
          out_RC,
        });
        return dot(out_RC, onOut) + dot(data, onState);
      };
      loss(inputs);
      const gradients = {
        ...{ raw: poison(rows * channels), weight: poison(channels * taps), bias: poison(channels), state: onState.slice() },
      };
      device.convBackward({
        ...{ ...shape, raw: { data: inputs.raw, first: 0, stride: channels }, weight_CW: inputs.weight, bias_C: inputs.bias },
        ...{ savedTaps_BWC: inputs.state, dOut_RC: onOut, dRaw: { data: gradients.raw, first: 0, stride: channels } },
        ...{ dWeight_CW: gradients.weight, dBias_C: gradients.bias, stateGradient: { data: gradients.state, stride } },
      });
      assertGradients(inputs, loss, gradients);
    }
  });

  it("differentiates the gated norm in both orders, by row and by group", () => {
    for (const normBeforeGate of [false, true]) {
      for (const groupWidth of [6, 3]) {
        const [rows, width] = [4, 6];
        const shape = { rows, width, groupWidth, normBeforeGate };
        const inputs = { y: wide("y", rows * width), gate: wide("gate", rows * width), weight: wide("weight", width) };
        const onOut = wide("onOut", rows * width);
        const inverseRms = poison((rows * width) / groupWidth);
        const loss = (given: Inputs): number => {
          const out_RI = poison(rows * width);
          const gate = { data: given.gate!, first: 0, stride: width };
          device.gatedNorm({ ...shape, eps: 1e-5, y_RI: given.y!, gate, weight_I: given.weight!, out_RI, inverseRms });
          return dot(out_RI, onOut);
        };
        loss(inputs);
        const gradients = { y: poison(rows * width), gate: poison(rows * width), weight: poison(width) };
        device.gatedNormBackward({
          ...{
            ...shape,
            y_RI: inputs.y,
            gate: { data: inputs.gate, first: 0, stride: width },
            weight_I: inputs.weight,
            inverseRms,
          },
          ...{ dOut_RI: onOut, dY_RI: gradients.y, dGate: { data: gradients.gate, first: 0, stride: width } },
          ...{ dWeight_I: gradients.weight, out_RI: poison(rows * width) },
        });
        assertGradients(inputs, loss, gradients);
      }
    }
  });

  for (const tieEmbeddings of [true, false]) {
    it(`differentiates the whole model, ${tieEmbeddings ? "tied" : "untied"}, with states, resets, weights and groups`, () => {
      const model: ModelSpec = {
        ...{ layers: 2, dModel: 6, dState: 3, headDim: 3, expand: 2, dConv: 4, groups: 2, chunk: 4, vocab: 7, padVocabMultiple: 1 },
        ...{ tieEmbeddings, rmsEps: 1e-5 },
      };
      const [lanes, tokens] = [2, 10];
      const rows = lanes * tokens;
      const layout = parameterLayout(model);
      const tensors = (flat: Float64Array): ReturnType<typeof modelTensors<Float64Array>> =>
        modelTensors(device, layout, model.layers, flat);
      const tokens_R = randomTokens("tokens", rows, model.vocab);
      const labels_R = randomTokens("labels", rows, model.vocab);
      const segment = { lanes, tokens, tokens_R, resets_R: someResets("model", rows, 6) };
      const weights_R = wide("weights", rows).map((w, r) => (r % 4 === 0 ? 0 : Math.abs(w)));
      const states = wide("states", lanes * laneStateFloats(model));
      const buffers = takeForward(model, lanes, tokens, true, poison);
      const loss = ({ parameters }: Inputs): number => {
        const m = { device, model, parameters: tensors(parameters!) };
        const hidden_RD = forward(m, segment, states.slice(), buffers);
        device.headLoss({
          ...{ rows, width: model.dModel, vocab: model.vocab, hidden_RD, table_VD: m.parameters.head_VD },
          ...{ labels_R, losses_R: buffers.losses_R },
        });
        return dot(buffers.losses_R, weights_R);
      };
      const inputs = { parameters: Float64Array.from(noisyParameters(model)) };
      loss(inputs);
      const gradient = poison(layout.size);
      const m = { device, model, parameters: tensors(inputs.parameters) };
      const targets = { labels_R, weights_R, losses_R: buffers.losses_R };
      backward(m, segment, targets, buffers, takeBackward(model, lanes, tokens, buffers, poison), tensors(gradient));
      for (const { name, offset, size } of layout.entries) {
        const part = { [name]: inputs.parameters.subarray(offset, offset + size) };
        const lossOfPart = (moved: Inputs): number => {
          const parameters = inputs.parameters.slice();
          parameters.set(moved[name]!, offset);
          return loss({ parameters });
        };
        assertGradients(part, lossOfPart, { [name]: gradient.subarray(offset, offset + size) });
      }
    });
  }
});
