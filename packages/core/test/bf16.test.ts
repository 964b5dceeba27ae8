import assert from "node:assert/strict";
import { roundToBf16, widenBf16 } from "@segue/core";

describe("bfloat16", () => {
  const round = (...values: number[]): number[] => {
    const floats = Float32Array.from(values);
    const wire = new Uint16Array(floats.length);
    roundToBf16(floats, wire);
    const back = new Float32Array(floats.length);
    widenBf16(wire, back);
    assert.deepEqual(back, floats, "what travels is what stays");
    return [...floats];
  };

  it("keeps what it can hold", () => {
    assert.deepEqual(round(0, -0, 1, -2.5, 2 ** -130, Infinity, -Infinity, NaN), [
      0,
      -0,
      1,
      -2.5,
      2 ** -130,
      Infinity,
      -Infinity,
      NaN,
    ]);
  });

  it("rounds to the nearest, ties to even, and overflows to infinity", () => {
    const ulp = 2 ** -7;
    assert.deepEqual(round(1 + 0.4 * ulp, 1 + 0.6 * ulp, 1 + 0.5 * ulp, 1 + 1.5 * ulp), [1, 1 + ulp, 1, 1 + 2 * ulp]);
    assert.deepEqual(round(-3.4028235e38), [-Infinity]);
  });

  it("errs by at most one part in 256", () => {
    const values = Array.from({ length: 1000 }, (_, i) => Math.fround(Math.sin(i) * 10 ** ((i % 60) - 30)));
    round(...values).forEach((value, i) => assert.ok(Math.abs(value - values[i]!) <= Math.abs(values[i]!) / 256));
  });
});
