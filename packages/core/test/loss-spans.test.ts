import assert from "node:assert/strict";
import { lossSpans, meanLoss, NO_CURE, rankCures, type CureSpec } from "@segue/core";

describe("lossSpans", () => {
  it("is the training length and then every doubling of the length, to the curve's end", () => {
    const curve = { bucketTokens: 10, losses: [1, 3, 4, 4, 5, 5, 5, 9, 7, 7] };
    assert.deepEqual(lossSpans(curve, 20), [
      { fromToken: 0, toToken: 20, loss: 2 },
      { fromToken: 20, toToken: 40, loss: 4 },
      { fromToken: 40, toToken: 80, loss: 6 },
      { fromToken: 80, toToken: 100, loss: 7 },
    ]);
  });

  it("counts a bucket across a border to what comes behind it, and has no spans without buckets", () => {
    const curve = { bucketTokens: 40, losses: [1, 2, 3] };
    assert.deepEqual(lossSpans(curve, 60), [
      { fromToken: 0, toToken: 60, loss: 1 },
      { fromToken: 60, toToken: 120, loss: 2.5 },
    ]);
    assert.deepEqual(
      lossSpans(curve, 10).map(({ fromToken }) => fromToken),
      [20, 40, 80],
    );
  });

  it("has no mean where a loss is no number", () => {
    const curve = { bucketTokens: 10, losses: [1, null, 3] };
    assert.deepEqual([meanLoss(curve), meanLoss(curve, 0, 10), meanLoss(curve, 20)], [null, 1, 3]);
  });
});

describe("rankCures", () => {
  const curve = (cure: CureSpec, losses: (number | null)[]) => ({ cure, losses, bucketTokens: 10, trainTokens: 20 });

  it("puts the least mean loss first, what has none last, and tells the loss within the training length", () => {
    const scaled: CureSpec = { kind: "longMamba", dtScale: 0.5 };
    const reduced: CureSpec = { kind: "reduced", retention: 0.999, insertion: 1 };
    const ranked = rankCures([curve(NO_CURE, [1, 1, null]), curve(scaled, [1, 2, 6]), curve(reduced, [2, 3, 2])]);
    assert.deepEqual(
      ranked.map(({ cure, trainLoss }) => [cure.kind, trainLoss]),
      [
        ["reduced", 2.5],
        ["longMamba", 1.5],
        ["none", 1],
      ],
    );
  });
});
