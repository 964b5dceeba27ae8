import assert from "node:assert/strict";
import {
  convStatistics,
  decodeSafetensors,
  firstTokenRetention,
  headHistograms,
  headStatistics,
  histogramOf,
  laneStateFloats,
  packedStateBytes,
  packStates,
  randomStream,
  summariseStates,
  tensorToFloat32,
  validateJobSpec,
  valueStatistics,
  varianceGrowth,
  type HeadStatistics,
  type StateSample,
} from "@segue/core";

const { model } = validateJobSpec({
  model: { layers: 2, dModel: 16, headDim: 8, dState: 32 },
  data: { passkey: {} },
  train: { steps: 1 },
}).spec;
const HEAD_FLOATS = 256;
const HEADS = 8;

/** The definitions, in float64 and with a sort. */
function byDefinition(values: readonly number[]) {
  const count = values.length;
  const mean = values.reduce((sum, value) => sum + value / count, 0);
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2 / (count - 1), 0);
  const sorted = values.toSorted((a, b) => a - b);
  const squares = values.map((value) => value * value).sort((a, b) => b - a);
  const total = squares.reduce((sum, square) => sum + square, 0);
  const outliers = squares.slice(0, Math.max(1, Math.floor(count / 100))).reduce((sum, square) => sum + square, 0);
  return {
    mean,
    variance,
    rms: Math.sqrt(total / count),
    median: (sorted[Math.floor((count - 1) / 2)]! + sorted[Math.ceil((count - 1) / 2)]!) / 2,
    largest: Math.max(...values.map(Math.abs)),
    outlierShare: outliers / total,
  };
}

describe("valueStatistics", () => {
  it("agrees with the definitions in float64, for even and odd counts, ties, and a mean far from zero", () => {
    const random = randomStream(2, "values");
    for (const count of [1, 2, 3, 99, 100, 1000, 8192]) {
      for (const draw of [
        () => random.normal(),
        () => 1000 + random.normal(),
        () => random.below(3) - 1,
        () => random.normal() ** 5,
      ]) {
        const values = Float32Array.from({ length: count }, draw);
        const expected = byDefinition(Array.from(values));
        for (const [name, found] of Object.entries(valueStatistics(values))) {
          const wanted = count === 1 && name === "variance" ? 0 : expected[name as keyof typeof expected];
          if (Number.isNaN(wanted)) continue;
          assert.ok(
            Math.abs(found - wanted) <= 1e-9 * Math.max(1, Math.abs(wanted)),
            `${name} of ${count}: ${found}, not ${wanted}`,
          );
        }
      }
    }
  });

  it("leaves the values as they are", () => {
    const values = Float32Array.of(3, 1, 2);
    valueStatistics(values);
    assert.deepEqual([...values], [3, 1, 2]);
  });

  it("sees one channel that has most of the energy, and none among zeros", () => {
    const values = new Float32Array(8192).fill(0.01);
    values[77] = -50;
    assert.ok(valueStatistics(values).outlierShare > 0.999);
    assert.equal(valueStatistics(new Float32Array(8192)).outlierShare, 0);
    const random = randomStream(3, "normal");
    const { outlierShare } = valueStatistics(Float32Array.from({ length: 2 ** 17 }, () => random.normal()));
    assert.ok(Math.abs(outlierShare - 0.0845) < 0.004, String(outlierShare));
  });

  it("is no number where a value is none", () => {
    for (const bad of [NaN, Infinity, -Infinity]) {
      assert.deepEqual(new Set(Object.values(valueStatistics(Float32Array.of(1, bad, 2)))), new Set([NaN]));
    }
  });
});

describe("headStatistics and convStatistics", () => {
  const random = randomStream(1, "state");
  const state = Float32Array.from({ length: laneStateFloats(model) }, () => 1000 + random.normal());

  it("go through the heads layer by layer, and the taps behind them", () => {
    const found = headStatistics(model, state);
    assert.deepEqual(
      found.map(({ layer, head }) => [layer, head]),
      [0, 1].flatMap((layer) => [0, 1, 2, 3].map((head) => [layer, head])),
    );
    found.forEach(({ layer: _layer, head: _head, ...statistics }, index) => {
      assert.deepEqual(statistics, valueStatistics(state.slice(index * HEAD_FLOATS, (index + 1) * HEAD_FLOATS)));
    });
    const taps = state.slice(HEADS * HEAD_FLOATS);
    assert.equal(taps.length, 2 * 3 * 96);
    assert.deepEqual(convStatistics(model, state), [valueStatistics(taps.slice(0, 288)), valueStatistics(taps.slice(288))]);
  });

  it("refuse a state of another size", () => {
    assert.throws(() => headStatistics(model, state.subarray(0, 100)), RangeError);
    assert.throws(() => convStatistics(model, state.subarray(0, HEADS * HEAD_FLOATS)), RangeError);
  });
});

describe("histogramOf", () => {
  it("counts every number once, between the smallest and the largest", () => {
    assert.deepEqual(histogramOf(Float32Array.of(0, 1, 2, 2.5, 4), 4), { low: 0, high: 4, counts: [1, 1, 2, 1] });
    const random = randomStream(1, "histogram");
    const values = Float32Array.from({ length: 5000 }, () => random.normal());
    const { low, high, counts } = histogramOf(values);
    assert.deepEqual([low, high, counts.length], [Math.min(...values), Math.max(...values), 40]);
    counts.forEach((count, bin) => {
      const [from, to] = [low + (bin * (high - low)) / 40, low + ((bin + 1) * (high - low)) / 40];
      const within = values.filter((value) => value >= from && (value < to || bin === 39)).length;
      assert.ok(Math.abs(count - within) <= 1, `bin ${bin}`);
    });
    assert.equal(
      counts.reduce((sum, count) => sum + count),
      5000,
    );
  });

  it("has one bin for equal numbers, and leaves out what is none", () => {
    assert.deepEqual(histogramOf(Float32Array.of(2, NaN, 2, Infinity), 2), { low: 2, high: 2, counts: [2, 0] });
    assert.deepEqual(histogramOf(Float32Array.of(NaN), 2), { low: NaN, high: NaN, counts: [0, 0] });
  });
});

describe("firstTokenRetention", () => {
  it("is the product of the decays exp(A dt), each with its part of a reduced retention", () => {
    const random = randomStream(5, "decay");
    const times = Array.from({ length: 100 }, () => random.uniform() / 100);
    const product = (own: number): number => times.reduce((left, dt) => left * Math.exp(-0.7 * dt) * own, 1);
    const sum = times.reduce((total, dt) => total + dt);
    assert.ok(Math.abs(firstTokenRetention(-0.7, sum) / product(1) - 1) < 1e-12);
    assert.ok(Math.abs(firstTokenRetention(-0.7, sum, 100, Math.log(0.99)) / product(0.99) - 1) < 1e-12);
  });
});

describe("packStates", () => {
  const random = randomStream(4, "packed");
  const state = Float32Array.from({ length: laneStateFloats(model) }, () => random.normal());
  const inputs = Array.from({ length: HEADS }, (_, index) => ({
    dt: index,
    x: 10 + index,
    b: 20,
    c: 30,
    retention: 1 / (1 + index),
  }));
  const bare = { heads: headStatistics(model, state), conv: convStatistics(model, state) };
  const whole: StateSample[] = [
    { tokens: 64, ...bare, inputs },
    { tokens: 128, ...bare, inputs, histograms: headHistograms(model, state) },
  ];

  it("has every statistic of every sample under its name", () => {
    const tensors = decodeSafetensors(packStates(model, whole, { prompt: "newlines" }));
    const floats = (name: string): number[] => [...tensorToFloat32(tensors.get(name)!)];
    const integers = (name: string): number[] => [...new Int32Array(Uint8Array.from(tensors.get(name)!.data).buffer)];
    assert.deepEqual(integers("tokens"), [64, 128]);
    for (const name of ["mean", "variance", "rms", "median", "largest", "outlierShare"] as const) {
      assert.deepEqual(tensors.get(`ssm.${name}`)!.shape, [2, 2, 4]);
      const once = bare.heads.map((head) => Math.fround(head[name]));
      assert.deepEqual(floats(`ssm.${name}`), [...once, ...once]);
      assert.deepEqual(tensors.get(`conv.${name}`)!.shape, [2, 2]);
      assert.deepEqual(
        floats(`conv.${name}`).slice(2),
        bare.conv.map((layer) => Math.fround(layer[name])),
      );
    }
    assert.deepEqual(floats("input.x").slice(8), [10, 11, 12, 13, 14, 15, 16, 17]);
    assert.deepEqual(floats("input.retention").slice(0, 2), [1, 0.5]);
    assert.deepEqual(integers("histogram.tokens"), [128]);
    assert.deepEqual(tensors.get("histogram.counts")!.shape, [1, 2, 4, 40]);
    const { counts, high } = headHistograms(model, state)[7]!;
    assert.deepEqual(integers("histogram.counts").slice(280), counts);
    assert.equal(floats("histogram.high")[7], high);
  });

  it("is as large as was foretold", () => {
    const bytes = [...decodeSafetensors(packStates(model, whole)).values()].reduce((sum, { data }) => sum + data.length, 0);
    // Where no sample has histograms, their list of places is not there either.
    assert.equal(packedStateBytes(model, 2, 1), bytes);
  });

  it("leaves out what an engine could not tell", () => {
    assert.deepEqual(
      [...decodeSafetensors(packStates(model, [{ tokens: 64, ...bare }])).keys()].filter((name) => !/^(ssm|conv)/.test(name)),
      ["tokens"],
    );
  });
});

const headWith = (head: number, variance: number, outlierShare = 0): HeadStatistics => ({
  ...{ layer: 0, head, mean: 0, variance, rms: 0, median: 0, largest: 0, outlierShare },
});

describe("varianceGrowth", () => {
  const sample = (tokens: number, ...variances: number[]): StateSample => ({
    tokens,
    heads: variances.map((variance, head) => headWith(head, variance)),
    conv: [],
  });

  it("compares the largest variances beyond and within the training length, fastest first", () => {
    const growth = varianceGrowth([sample(128, 1, 2), sample(256, 4, 1), sample(384, 4, 9), sample(512, 2, 20)], 256);
    assert.deepEqual(growth, [
      { layer: 0, head: 1, within: 2, beyond: 20, ratio: 10 },
      { layer: 0, head: 0, within: 4, beyond: 4, ratio: 1 },
    ]);
  });

  it("says nothing without samples on both sides", () => {
    assert.deepEqual(varianceGrowth([sample(128, 1)], 256), []);
    assert.deepEqual(varianceGrowth([sample(128, 1)], 64), []);
  });
});

describe("summariseStates", () => {
  it("names the heads that grow, those that keep the first token at the training length, and those with outliers at the end", () => {
    const sample = (tokens: number, retentions: number[], shares: number[]): StateSample => ({
      tokens,
      heads: shares.map((share, head) => headWith(head, tokens, share)),
      conv: [],
      inputs: retentions.map((retention) => ({ dt: 0, x: 0, b: 0, c: 0, retention })),
    });
    const samples = [sample(64, [0.9, 0.99], [0, 0]), sample(128, [0.8, 0.98], [0, 0]), sample(192, [0.7, 0.2], [0.3, 0.6])];
    const { growth, retention, outliers } = summariseStates(samples, 128);
    assert.deepEqual(
      growth.map(({ ratio }) => ratio),
      [1.5, 1.5],
    );
    assert.deepEqual(retention, [
      { layer: 0, head: 1, share: 0.98 },
      { layer: 0, head: 0, share: 0.8 },
    ]);
    assert.deepEqual(outliers[0], { layer: 0, head: 1, share: 0.6 });
  });
});
