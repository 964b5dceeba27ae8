import assert from "node:assert/strict";
import { randomStream, remembranceStarts, totalVariation } from "@segue/core";

describe("totalVariation", () => {
  const random = randomStream(1, "logits");
  const logits = (scale: number): number[] => Array.from({ length: 50 }, () => scale * random.normal());

  it("is half the sum of the probabilities' differences", () => {
    const [a, b] = [logits(3), logits(3)];
    const softmax = (row: number[]): number[] => {
      const powers = row.map(Math.exp);
      return powers.map((power) => power / powers.reduce((sum, other) => sum + other));
    };
    const q = softmax(b);
    const expected = softmax(a).reduce((sum, p, id) => sum + Math.abs(p - q[id]!) / 2, 0);
    assert.ok(Math.abs(totalVariation(a, b) - expected) < 1e-12);
    assert.equal(totalVariation(a, b), totalVariation(b, a));
  });

  it("is 0 of a row and itself, whatever is added to it, and 1 of rows that agree nowhere", () => {
    const a = logits(2);
    assert.equal(totalVariation(a, a), 0);
    assert.ok(
      totalVariation(
        a,
        a.map((logit) => logit + 500),
      ) < 1e-9,
    );
    assert.ok(totalVariation([1e4, 0, 0], [0, 1e4, 0]) > 1 - 1e-12);
  });
});

describe("remembranceStarts", () => {
  it("lie equally far apart within the context", () => {
    assert.deepEqual(remembranceStarts(8192).slice(0, 3), [512, 1024, 1536]);
    assert.equal(remembranceStarts(8192).length, 15);
    assert.deepEqual(remembranceStarts(4), [1, 2, 3]);
    assert.deepEqual(remembranceStarts(1), []);
  });
});
