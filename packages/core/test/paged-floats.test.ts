import assert from "node:assert/strict";
import { pagedFloats, setFloats, stretches } from "../src/index.js";

describe("floats in pages", () => {
  const lengths = (length: number, pageFloats?: number): number[] =>
    pagedFloats(length, pageFloats).pages.map((page) => page.length);

  it("have pages of one length and a last one with the rest", () => {
    assert.deepEqual(lengths(10, 4), [4, 4, 2]);
    assert.deepEqual(lengths(8, 4), [4, 4]);
    assert.deepEqual(lengths(3, 4), [3]);
    assert.deepEqual(lengths(0, 4), []);
    assert.deepEqual(lengths(5), [5]);
  });

  it("are written and read in stretches that never leave a page", () => {
    const vector = pagedFloats(11, 4);
    setFloats(
      vector,
      Float32Array.from({ length: 11 }, (_, i) => i),
      0,
    );
    for (let begin = 0; begin <= 11; begin++) {
      for (let end = begin; end <= 11; end++) {
        const found = [...stretches(vector, begin, end)];
        const values = found.flatMap(({ floats }) => [...floats]);
        assert.deepEqual(
          values,
          Array.from({ length: end - begin }, (_, i) => begin + i),
        );
        for (const { offset, floats } of found) assert.equal(Math.floor(offset / 4), Math.floor((offset + floats.length - 1) / 4));
      }
    }
    setFloats(vector, Float32Array.of(-1, -2, -3), 3);
    assert.deepEqual(
      vector.pages.map((page) => [...page]),
      [
        [0, 1, 2, -1],
        [-2, -3, 6, 7],
        [8, 9, 10],
      ],
    );
  });

  it("refuse what lies beyond their end", () => {
    const vector = pagedFloats(5, 2);
    assert.throws(() => [...stretches(vector, 4, 6)], RangeError);
    assert.throws(() => setFloats(vector, new Float32Array(3), 3), RangeError);
  });
});
