import assert from "node:assert/strict";
import { packStates, validateJobSpec, type StateSample } from "@segue/core";
import { readStates, stateFigures } from "../src/index.js";

const LAYERS = 3;
const HEADS = 4;
const { model } = validateJobSpec({
  model: { layers: LAYERS, dModel: 32, headDim: 16, dState: 16 },
  data: { passkey: {} },
  train: { steps: 1 },
}).spec;

const forty = (count: number): number[] => Array.from({ length: 40 }, () => count);

/** Every head and layer differs from every other. */
const samples: StateSample[] = [128, 256, 512].map((tokens) => {
  const statistics = (scale: number) => ({
    ...{ mean: scale, variance: scale * tokens, rms: 1, median: 0, largest: 2, outlierShare: 0.125 },
  });
  const heads = Array.from({ length: LAYERS * HEADS }, (_, index) => ({
    layer: Math.floor(index / HEADS),
    head: index % HEADS,
    ...statistics(index + 1),
  }));
  return {
    tokens,
    heads,
    conv: Array.from({ length: LAYERS }, (_, layer) => statistics(layer + 1)),
    inputs: heads.map((_, index) => ({ dt: index, x: 2, b: 3, c: 4, retention: 2 ** -index })),
    ...(tokens > 128 && { histograms: heads.map((_, index) => ({ low: -index, high: index + 1, counts: forty(index) })) }),
  };
});

describe("figures of state statistics", () => {
  const trace = readStates(packStates(model, samples));

  it("read a file back as it was written", () => {
    assert.deepEqual([trace.tokens, trace.layers, trace.heads, trace.hasInputs], [[128, 256, 512], LAYERS, HEADS, true]);
    assert.deepEqual(trace.head("ssm.variance", 5), [6 * 128, 6 * 256, 6 * 512]);
    assert.deepEqual(trace.conv("conv.mean", 2), [3, 3, 3]);
    assert.deepEqual(trace.histograms(7), [
      { tokens: 256, low: -7, high: 8, counts: forty(7) },
      { tokens: 512, low: -7, high: 8, counts: forty(7) },
    ]);
  });

  it("show the heads that grow and those that keep, and all layers", () => {
    const figures = stateFigures(trace, "text", 256);
    const [heads, layers, conv, retention, inputs, channels] = figures;
    assert.ok(heads?.kind === "stateMoments" && layers?.kind === "stateMoments" && conv?.kind === "stateMoments");
    assert.ok(retention?.kind === "retention" && inputs?.kind === "headInputs" && channels?.kind === "channelHistogram");
    assert.deepEqual(heads.variances[0], { name: "layer 2 head 3", values: [12 * 128, 12 * 256, 12 * 512] });
    assert.equal(heads.variances.length, 8);
    assert.deepEqual(layers.means[1], { name: "layer 1", values: [6.5, 6.5, 6.5] });
    assert.deepEqual(conv.variances[2], { name: "layer 2", values: [3 * 128, 3 * 256, 3 * 512] });
    assert.deepEqual(retention.heads[1], { name: "layer 0 head 1", values: [0.5, 0.5, 0.5] });
    assert.deepEqual(
      inputs.dt.map(({ values }) => values[0]),
      [0, 1, 2, 3, 4, 5, 6, 7],
    );
    assert.deepEqual(
      channels.places.map(({ counts }) => counts[0]),
      [11, 11],
    );
    assert.equal(new Set(figures.map(({ id }) => id)).size, figures.length);
  });

  it("leave out what a trace does not hold", () => {
    const bare = samples.map(({ tokens, heads, conv }) => ({ tokens, heads, conv }));
    const kinds = stateFigures(readStates(packStates(model, bare)), "", undefined).map(({ kind }) => kind);
    assert.deepEqual(kinds, ["stateMoments", "stateMoments", "stateMoments"]);
  });

  it("refuse another file", () => {
    assert.throws(() => readStates(new Uint8Array(4)), { code: "SAFETENSORS_INVALID" });
    assert.throws(() => readStates(packStates(model, [])), { code: "STATES_INVALID" });
  });
});
