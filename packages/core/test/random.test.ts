import assert from "node:assert/strict";
import { randomStream } from "@segue/core";

describe("randomStream", () => {
  it("gives the same numbers for the same seed and labels, written down once and for all", () => {
    const stream = randomStream(7, "init", 3);
    assert.deepEqual([stream.uint32(), stream.uint32(), stream.uint32()], [4052695649, 3526633736, 2491477370]);
    assert.equal(randomStream(7, "init", 3).normal(), randomStream(7, "init", 3).normal());
  });

  it("tells labels apart by content, type and framing", () => {
    const keys: (string | number)[][] = [[], ["a"], ["a", "b"], ["ab"], [1], ["1"], [1, 2], [2, 1], [0], [-0.5]];
    const firsts = keys.map((labels) => randomStream(1, ...labels).uint32());
    assert.equal(new Set(firsts).size, keys.length);
    assert.notEqual(randomStream(1).uint32(), randomStream(2).uint32());
  });

  it("draws uniform and normal numbers with the right moments", () => {
    const stream = randomStream(1, "moments");
    const draws = 200_000;
    let uniformSum = 0;
    let sum = 0;
    let sumSquares = 0;
    let sumFourth = 0;
    for (let i = 0; i < draws; i++) {
      const u = stream.uniform();
      assert.ok(u >= 0 && u < 1);
      uniformSum += u;
      const n = stream.normal();
      sum += n;
      sumSquares += n * n;
      sumFourth += n ** 4;
    }
    assert.ok(Math.abs(uniformSum / draws - 0.5) < 0.003);
    assert.ok(Math.abs(sum / draws) < 0.01);
    assert.ok(Math.abs(sumSquares / draws - 1) < 0.015);
    assert.ok(Math.abs(sumFourth / draws - 3) < 0.12);
  });

  it("draws every integer below n about equally often and refuses other n", () => {
    const stream = randomStream(2);
    const counts = new Array<number>(6).fill(0);
    for (let i = 0; i < 60_000; i++) counts[stream.below(6)]!++;
    for (const count of counts) assert.ok(Math.abs(count - 10_000) < 500, `${counts.join(" ")}`);
    for (const n of [0, -1, 1.5, 2 ** 33, Number.NaN]) assert.throws(() => stream.below(n), RangeError);
  });
});
