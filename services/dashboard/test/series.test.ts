import assert from "node:assert/strict";
import { mergeAttempts } from "@segue/runtime";
import { chooseResolution, downsample, parseEntry, toColumns, type SeriesPoint } from "../src/series.js";

const point = (step: number, loss: number): SeriesPoint => ({
  step,
  loss,
  learningRate: 1e-3,
  gradientNorm: 1,
  tokensPerSecond: 100,
  tokens: step * 10,
});

describe("series", () => {
  it("reads a stream entry and leaves out one without a step", () => {
    const entry = parseEntry(["step", "7", "loss", "2.5", "lr", "0.001", "gnorm", "", "tps", "NaN", "tokens", "70"]);
    assert.deepEqual(entry, { step: 7, loss: 2.5, learningRate: 0.001, gradientNorm: NaN, tokensPerSecond: NaN, tokens: 70 });
    assert.equal(parseEntry(["loss", "2.5"]), undefined);
  });

  it("lets a later attempt replace what an earlier one recorded from its first step on", () => {
    const first = [1, 2, 3, 4, 5].map((step) => point(step, 9));
    const second = [4, 5].map((step) => point(step, 3));
    const merged = mergeAttempts([first, [], second]);
    assert.deepEqual(
      merged.map(({ step, loss }) => [step, loss]),
      [
        [1, 9],
        [2, 9],
        [3, 9],
        [4, 3],
        [5, 3],
      ],
    );
    assert.deepEqual(
      mergeAttempts([first, [point(2, 1)]]).map(({ step }) => step),
      [1, 2],
      "rolled-back steps are gone",
    );
  });

  it("keeps the number of points, the last step and the mean loss when it thins", () => {
    const points = Array.from({ length: 1003 }, (_, index) => point(index + 1, index));
    const thin = downsample(points, 100);
    assert.equal(thin.length, 100);
    assert.equal(thin.at(-1)?.step, 1003);
    assert.equal(thin[0]?.loss, 4.5);
    assert.deepEqual(downsample(points.slice(0, 5), 100), points.slice(0, 5));
  });

  it("takes the finest stream that reaches back to the start at a bounded price", () => {
    assert.equal(chooseResolution(6_000, 600), 1);
    assert.equal(chooseResolution(6_001, 600), 10);
    assert.equal(chooseResolution(25_000, 5_000), 10, "the full stream keeps 20,000 entries only");
    assert.equal(chooseResolution(1_000_000, 600), 100);
  });

  it("writes numbers that JSON cannot hold as null", () => {
    assert.deepEqual(toColumns([point(1, NaN), point(2, Infinity), point(3, 1)]).loss, [null, null, 1]);
  });
});
