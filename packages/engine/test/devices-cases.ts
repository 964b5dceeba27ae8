import type { ScanShape } from "../src/devices/device.js";
import { someResets, type DeviceCase } from "./devices-support.js";
import { noise, randomTokens } from "./native-support.js";

/** Each operation with odd and even shapes; what it must write is poisoned first. */
export const DEVICE_CASES: Record<string, DeviceCase> = {};

for (const [rows, width, vocab] of [
  [1, 2, 3],
  [37, 19, 11],
  [300, 96, 64],
] as const) {
  DEVICE_CASES[`gatherRows and scatterAddRows, ${rows} x ${width}`] = ({ device, ...b }) => {
    const ids_R = b.ints(randomTokens("ids", rows, vocab));
    const gathered = b.poison(rows * width);
    device.gatherRows({ rows, width, table_VD: b.noise("table", vocab * width), ids_R, rows_RD: gathered });
    const table_VD = b.noise("sum", vocab * width);
    device.scatterAddRows({ rows, width, table_VD, ids_R, rows_RD: b.noise("rows", rows * width) });
    return { gathered: { data: gathered, length: rows * width }, scattered: { data: table_VD, length: vocab * width } };
  };
  for (const withDelta of [true, false]) {
    DEVICE_CASES[`addNorm and its backward, ${rows} x ${width}${withDelta ? "" : ", no delta, in place"}`] = ({ device, ...b }) => {
      const residual_RD = b.noise("residual", rows * width);
      const [out_RD, again_RD, inverseRms_R] = [b.poison(rows * width), b.poison(rows * width), b.poison(rows)];
      const weight_D = b.noise("weight", width, 0.3, 1);
      const sum_RD = withDelta ? b.poison(rows * width) : residual_RD;
      const delta_RD = withDelta ? b.noise("delta", rows * width) : undefined;
      device.addNorm({ rows, width, eps: 1e-5, residual_RD, delta_RD, weight_D, sum_RD, out_RD, inverseRms_R });
      const dSum_RD = withDelta ? b.noise("dSum", rows * width) : b.poison(rows * width);
      const dWeight_D = b.poison(width);
      device.addNormBackward({
        ...{ rows, width, sum_RD, weight_D, inverseRms_R, dOut_RD: b.noise("dOut", rows * width), dSum_RD },
        ...{ accumulate: withDelta, dWeight_D, out_RD: again_RD },
      });
      return {
        sum: { data: sum_RD, length: rows * width },
        out: { data: out_RD, length: rows * width },
        again: { data: again_RD, length: rows * width },
        dSum: { data: dSum_RD, length: rows * width },
        dWeight: { data: dWeight_D, length: width },
      };
    };
  }
  for (const training of [true, false]) {
    DEVICE_CASES[`headLoss, ${rows} x ${width}, ${vocab} tokens${training ? ", with gradients" : ""}`] = ({ device, ...b }) => {
      const weights = noise("weights", rows).map((w, r) => (r % 3 === 0 ? 0 : Math.abs(w)));
      const [losses_R, dHidden_RD, dTable_VD] = [b.poison(rows), b.poison(rows * width), b.poison(vocab * width)];
      device.headLoss({
        ...{ rows, width, vocab, hidden_RD: b.noise("hidden", rows * width), table_VD: b.noise("table", vocab * width, 0.3) },
        ...{ labels_R: b.ints(randomTokens("labels", rows, vocab)), losses_R },
        gradient: training ? { weights_R: b.floats(weights), dHidden_RD, dTable_VD } : undefined,
      });
      const losses = { losses: { data: losses_R, length: rows } };
      const gradients = { dHidden: { data: dHidden_RD, length: rows * width }, dTable: { data: dTable_VD, length: vocab * width } };
      return training ? { ...losses, ...gradients } : losses;
    };
  }
}

for (const [m, n, k] of [
  [1, 1, 1],
  [1, 70, 530],
  [3, 45, 270],
  [5, 7, 3],
  [13, 33, 300],
  [65, 129, 64],
  [200, 31, 17],
] as const) {
  for (const [transposeA, transposeB] of [
    [false, false],
    [false, true],
    [true, false],
  ] as const) {
    for (const accumulate of [false, true]) {
      const name = `matmul ${m} x ${n} x ${k}${transposeA ? ", a transposed" : ""}${transposeB ? ", b transposed" : ""}`;
      DEVICE_CASES[`${name}${accumulate ? ", accumulating" : ""}`] = ({ device, ...b }) => {
        const out = accumulate ? b.noise("out", m * n) : b.poison(m * n);
        device.matmul({ m, n, k, a: b.noise("a", m * k), b: b.noise("b", k * n), out, transposeA, transposeB, accumulate });
        return { out: { data: out, length: m * n } };
      };
    }
  }
}

for (const [lanes, tokens, channels, taps] of [
  [2, 1, 5, 4],
  [1, 2, 16, 4],
  [3, 70, 21, 4],
  [2, 130, 48, 4],
  [2, 9, 6, 3],
] as const) {
  for (const withResets of [false, true]) {
    const name = `conv and its backward, ${lanes} x ${tokens} x ${channels}, ${taps} taps${withResets ? ", resets" : ""}`;
    DEVICE_CASES[name] = ({ device, ...b }) => {
      const rows = lanes * tokens;
      const stride = channels + 7;
      const laneStride = (taps - 1) * channels + 3;
      const resets_R = withResets ? b.ints(someResets("conv", rows, 9, [rows - 1])) : undefined;
      const segment = { lanes, tokens, channels, taps, resets_R };
      const raw = { data: b.noise("raw", rows * stride), first: 4, stride };
      const weight_CW = b.noise("weight", channels * taps);
      const bias_C = b.noise("bias", channels);
      const state = { data: b.noise("taps", lanes * laneStride), stride: laneStride };
      const savedTaps_BWC = b.poison(lanes * (taps - 1) * channels);
      const out_RC = b.poison(rows * channels);
      device.conv({ ...segment, raw, weight_CW, bias_C, state, savedTaps_BWC, out_RC });
      const dRaw = { data: b.poison(rows * stride), first: 4, stride };
      const stateGradient = { data: b.noise("dTaps", lanes * laneStride), stride: laneStride };
      const [dWeight_CW, dBias_C] = [b.poison(channels * taps), b.poison(channels)];
      device.convBackward({
        ...{ ...segment, raw, weight_CW, bias_C, savedTaps_BWC, dOut_RC: b.noise("dOut", rows * channels) },
        ...{ dRaw, dWeight_CW, dBias_C, stateGradient },
      });
      return {
        out: { data: out_RC, length: rows * channels },
        finalTaps: { data: state.data, length: lanes * laneStride },
        dRaw: { data: dRaw.data, length: rows * stride },
        dWeight: { data: dWeight_CW, length: channels * taps },
        dBias: { data: dBias_C, length: channels },
        dTaps: { data: stateGradient.data, length: lanes * laneStride },
      };
    };
  }
}

for (const length of [1, 257, 1003]) {
  DEVICE_CASES[`subtract, divide and outerStep, ${length}`] = ({ device, ...b }) => {
    const [difference, quotient, parameters] = [b.poison(length), b.poison(length), b.poison(length)];
    const [start, velocity] = [b.noise("start", length), b.noise("velocity", length, 0.1)];
    device.subtract(start, b.noise("weights", length), difference);
    device.divide(b.noise("moments", length), 7, quotient);
    const changes = b.noise("changes", length, 0.1);
    device.outerStep({ changes, replicas: 7, learningRate: 0.7, momentum: 0.9, start, velocity, parameters });
    return {
      difference: { data: difference, length },
      quotient: { data: quotient, length },
      velocity: { data: velocity, length },
      parameters: { data: parameters, length },
    };
  };
}

for (const [rows, heads, min, max] of [
  [1, 1, 0, Infinity],
  [67, 5, 0, Infinity],
  [300, 24, 0.05, 3],
] as const) {
  DEVICE_CASES[`timeSteps and their backward, ${rows} x ${heads}, between ${min} and ${max}`] = ({ device, ...b }) => {
    const stride = heads + 3;
    const raw = { data: b.noise("raw", rows * stride, 8), first: 2, stride };
    const shape = { rows, heads, min, max, raw, bias_H: b.noise("bias", heads), dt_RH: b.poison(rows * heads) };
    device.timeSteps(shape);
    const dRaw = { data: b.poison(rows * stride), first: 2, stride };
    const dBias_H = b.poison(heads);
    device.timeStepsBackward({ ...shape, dDt_RH: b.noise("dDt", rows * heads), dRaw, dBias_H });
    return {
      dt: { data: shape.dt_RH, length: rows * heads },
      dRaw: { data: dRaw.data, length: rows * stride },
      dBias: { data: dBias_H, length: heads },
    };
  };
}

for (const [rows, width, groupWidth, first] of [
  [1, 3, 3, 3],
  [37, 22, 22, 3],
  [37, 22, 11, 3],
  [41, 45, 15, 2],
  [200, 128, 32, 3],
  [200, 128, 32, 8],
  [67, 1024, 256, 4],
] as const) {
  for (const normBeforeGate of [false, true]) {
    const order = `${normBeforeGate ? "norm first" : "gate first"}${first % 4 === 0 ? ", aligned" : ""}`;
    DEVICE_CASES[`gatedNorm and its backward, ${rows} x ${width} by ${groupWidth}, ${order}`] = ({ device, ...b }) => {
      const stride = width + (first % 4 === 0 ? first : 5);
      const shape = { rows, width, groupWidth, normBeforeGate };
      const gate = { data: b.noise("gate", rows * stride), first, stride };
      const y_RI = b.noise("y", rows * width);
      const weight_I = b.noise("weight", width, 0.3, 1);
      const [out_RI, again_RI, inverseRms] = [
        b.poison(rows * width),
        b.poison(rows * width),
        b.poison((rows * width) / groupWidth),
      ];
      device.gatedNorm({ ...shape, eps: 1e-5, y_RI, gate, weight_I, out_RI, inverseRms });
      const dGate = { data: b.poison(rows * stride), first, stride };
      const dY_RI = b.noise("dOut", rows * width);
      const dWeight_I = b.poison(width);
      device.gatedNormBackward({
        ...shape,
        y_RI,
        gate,
        weight_I,
        inverseRms,
        dOut_RI: dY_RI,
        dY_RI,
        dGate,
        dWeight_I,
        out_RI: again_RI,
      });
      return {
        out: { data: out_RI, length: rows * width },
        again: { data: again_RI, length: rows * width },
        dY: { data: dY_RI, length: rows * width },
        dGate: { data: dGate.data, length: rows * stride },
        dWeight: { data: dWeight_I, length: width },
      };
    };
  }
}

interface ScanCase extends ScanShape {
  readonly lanes: number;
  readonly tokens: number;
}

const SCAN_CASES: readonly ScanCase[] = [
  { lanes: 1, tokens: 1, heads: 1, headDim: 1, dState: 1, groups: 1, chunk: 4 },
  { lanes: 5, tokens: 1, heads: 4, headDim: 9, dState: 23, groups: 2, chunk: 8 },
  { lanes: 2, tokens: 11, heads: 3, headDim: 5, dState: 7, groups: 1, chunk: 4 },
  { lanes: 2, tokens: 50, heads: 4, headDim: 16, dState: 16, groups: 2, chunk: 16 },
  { lanes: 1, tokens: 61, heads: 2, headDim: 33, dState: 17, groups: 1, chunk: 24 },
  { lanes: 3, tokens: 100, heads: 2, headDim: 64, dState: 128, groups: 1, chunk: 64 },
  { lanes: 1, tokens: 150, heads: 2, headDim: 8, dState: 8, groups: 2, chunk: 256 },
];

for (const shape of SCAN_CASES) {
  const { lanes, tokens, heads, headDim, dState, groups, chunk } = shape;
  for (const kind of ["plain", "resets", "padding", "no state gradient"] as const) {
    const size = `${lanes} x ${tokens}, ${heads} x ${headDim} heads, state ${dState}, ${groups} groups, chunk ${chunk}`;
    DEVICE_CASES[`scan and its backward, ${size}, ${kind}`] = ({ device, ...b }) => {
      const rows = lanes * tokens;
      const width = heads * headDim + 2 * groups * dState;
      const laneStride = heads * headDim * dState + 5;
      const chunkFloats = lanes * Math.ceil(tokens / chunk) * heads * headDim * dState;
      const resets_R = kind === "resets" ? b.ints(someResets("scan", rows, 20, [0, chunk, rows - 1])) : undefined;
      const dt = noise("dt", rows * heads, 0.4).map((x, i) =>
        kind === "padding" && Math.floor(i / heads) % 3 === 0 ? 0 : Math.abs(x),
      );
      const given = {
        ...{ ...shape, resets_R, xBC_RC: b.noise("xBC", rows * width, 0.7), dt_RH: b.floats(dt) },
        ...{ aLog_H: b.noise("aLog", heads, 0.7), skip_H: b.noise("skip", heads), chunkStates_BKHPN: b.poison(chunkFloats) },
      };
      const state = { data: b.noise("state", lanes * laneStride), stride: laneStride };
      const y_RI = b.poison(rows * heads * headDim);
      device.scan({ ...given, state, y_RI });
      const [dXBC_RC, dDt_RH, dALog_H, dSkip_H] = [
        b.poison(rows * width),
        b.poison(rows * heads),
        b.poison(heads),
        b.poison(heads),
      ];
      const gradient = { data: b.noise("dState", lanes * laneStride), stride: laneStride };
      device.scanBackward({
        ...{ ...given, dY_RI: b.noise("dY", rows * heads * headDim), dXBC_RC, dDt_RH, dALog_H, dSkip_H },
        ...{ dChunkStates_BKHPN: b.poison(chunkFloats), stateGradient: kind === "no state gradient" ? undefined : gradient },
      });
      return {
        y: { data: y_RI, length: rows * heads * headDim },
        finalState: { data: state.data, length: lanes * laneStride },
        dXBC: { data: dXBC_RC, length: rows * width },
        dDt: { data: dDt_RH, length: rows * heads },
        dALog: { data: dALog_H, length: heads },
        dSkip: { data: dSkip_H, length: heads },
        dInitialState: { data: gradient.data, length: lanes * laneStride },
      };
    };
  }
}

for (const shape of SCAN_CASES) {
  const { lanes, tokens, heads, headDim, dState, groups, chunk } = shape;
  for (const cure of [{ logRetention: -0.05 }, { insertion: 0.6 }, { logRetention: -0.01, insertion: 1.3 }]) {
    const size = `${lanes} x ${tokens}, ${heads} x ${headDim} heads, state ${dState}, ${groups} groups, chunk ${chunk}`;
    DEVICE_CASES[`scan with ${JSON.stringify(cure)}, ${size}`] = ({ device, ...b }) => {
      const rows = lanes * tokens;
      const width = heads * headDim + 2 * groups * dState;
      const laneStride = heads * headDim * dState + 5;
      const state = { data: b.noise("state", lanes * laneStride), stride: laneStride };
      const y_RI = b.poison(rows * heads * headDim);
      device.scan({
        ...{ ...shape, ...cure, state, y_RI, resets_R: b.ints(someResets("cured scan", rows, 40)) },
        ...{ xBC_RC: b.noise("xBC", rows * width, 0.7), dt_RH: b.floats(noise("dt", rows * heads, 0.4).map(Math.abs)) },
        ...{ aLog_H: b.noise("aLog", heads, 0.7), skip_H: b.noise("skip", heads) },
        chunkStates_BKHPN: b.poison(lanes * Math.ceil(tokens / chunk) * heads * headDim * dState),
      });
      return {
        y: { data: y_RI, length: rows * heads * headDim },
        finalState: { data: state.data, length: lanes * laneStride },
      };
    };
  }
}

DEVICE_CASES["timeSteps, scaled"] = ({ device, ...b }) => {
  const [rows, heads] = [41, 7];
  const dt_RH = b.poison(rows * heads);
  const raw = { data: b.noise("raw", rows * 9, 8), first: 1, stride: 9 };
  device.timeSteps({ rows, heads, min: 0.1, max: 3, raw, bias_H: b.noise("bias", heads), scale: 0.3, dt_RH });
  return { dt: { data: dt_RH, length: rows * heads } };
};

for (const [lanes, tokens, groups, width] of [
  [1, 1, 1, 1],
  [3, 50, 4, 9],
  [2, 300, 2, 128],
] as const) {
  for (const squared of [false, true]) {
    DEVICE_CASES[`laneSums${squared ? " of squares" : ""}, ${lanes} x ${tokens}, ${groups} groups of ${width}`] = ({
      device,
      ...b
    }) => {
      const stride = groups * width + 4;
      const out = { data: b.poison(lanes * (groups + 2)), stride: groups + 2 };
      const columns = { data: b.noise("columns", lanes * tokens * stride, 1, 0.5), first: 3, stride };
      device.laneSums({ lanes, tokens, columns, groups, width, squared, out });
      return { sums: { data: out.data, length: lanes * (groups + 2) } };
    };
  }
}

for (const accumulate of [false, true]) {
  DEVICE_CASES[`mixHeads${accumulate ? ", accumulating" : ""}`] = ({ device, ...b }) => {
    const [lanes, heads, size] = [3, 5, 37];
    const [from, to] = [heads * size + 3, heads * size + 8];
    const state = { data: accumulate ? b.noise("state", lanes * to) : b.poison(lanes * to), stride: to };
    const factors_BH = b.noise("factors", lanes * heads);
    device.mixHeads({
      lanes,
      heads,
      size,
      factors_BH,
      from: { data: b.noise("from", lanes * from), stride: from },
      state,
      accumulate,
    });
    return { state: { data: state.data, length: lanes * to } };
  };
}

for (const length of [1, 17, 40000]) {
  DEVICE_CASES[`adamW, ${length} parameters`] = ({ device, ...b }) => {
    const [parameters, firstMoment] = [b.noise("parameters", length), b.noise("first", length, 0.01)];
    const secondMoment = b.floats(noise("second", length).map((x) => x * x * 1e-4));
    const rates = { gradientScale: 0.3, learningRate: 0.02, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, step: 7 };
    device.adamW({ parameters, gradient: b.noise("gradient", length), firstMoment, secondMoment, ...rates });
    return {
      parameters: { data: parameters, length },
      first: { data: firstMoment, length },
      second: { data: secondMoment, length },
    };
  };
  DEVICE_CASES[`copy and add of ${length}`] = ({ device, ...b }) => {
    const [copied, sum] = [b.poison(length), b.noise("sum", length)];
    device.copy(b.noise("x", length), copied);
    device.add(copied, sum);
    return { copied: { data: copied, length }, sum: { data: sum, length } };
  };
  DEVICE_CASES[`sumOfSquares of ${length}`] = ({ device, ...b }) => {
    return { sum: { data: b.floats([device.sumOfSquares(b.noise("x", length))]), length: 1 } };
  };
}

DEVICE_CASES["squaresOfBlocks, the last one short"] = ({ device, ...b }) => {
  const squares = b.poison(6);
  device.squaresOfBlocks(b.noise("x", 40_000), squares);
  return { sum: { data: b.floats([device.sumOfBlocks(squares)]), length: 1 } };
};

DEVICE_CASES["stateStatistics, 2 lanes of 3 heads of 35"] = ({ device, ...b }) => {
  const out = b.poison(2 * 3 * 4);
  device.stateStatistics({ lanes: 2, heads: 3, size: 35, state: { data: b.noise("state", 2 * 110), stride: 110 }, out });
  return { out: { data: out, length: 2 * 3 * 4 } };
};

DEVICE_CASES["mixHeads in place"] = ({ device, ...b }) => {
  const state = { data: b.noise("state", 2 * 110), stride: 110 };
  const factors_BH = b.noise("factors", 2 * 3);
  device.mixHeads({ lanes: 2, heads: 3, size: 35, factors_BH, from: state, state, accumulate: false });
  return { state: { data: state.data, length: 2 * 110 } };
};
