import assert from "node:assert/strict";
import fc from "fast-check";
import { SegmentCutter, stepsOfDocuments, type DocumentSource, type SegmentCutterOptions } from "@segue/core";

type Options = Omit<SegmentCutterOptions, "source"> & { readonly lengths: readonly number[] };

const options: fc.Arbitrary<Options> = fc.record({
  lengths: fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 1, maxLength: 12 }),
  eosId: fc.constant(0),
  seed: fc.integer({ min: 0, max: 1000 }),
  data: fc.record({
    minDocumentTokens: fc.integer({ min: 0, max: 20 }),
    epochs: fc.integer({ min: 1, max: 3 }),
    shuffle: fc.boolean(),
  }),
  tbptt: fc
    .record({
      segmentTokens: fc.integer({ min: 1, max: 9 }),
      segmentsPerStep: fc.integer({ min: 1, max: 3 }),
      segmentsPerChain: fc.constant(0),
      resetAtDocumentEnd: fc.boolean(),
      sequence: fc.constantFrom("contiguous" as const, "unrelated" as const),
      stateDropProbability: fc.constant(0),
      initialState: fc.constant("zero" as const),
      curriculum: fc.constantFrom(
        [],
        [
          { fromStep: 2, segmentTokens: 3 },
          { fromStep: 5, segmentsPerStep: 2 },
        ],
      ),
    })
    .map((tbptt) => ({ ...tbptt, resetAtDocumentEnd: tbptt.sequence === "contiguous" && tbptt.resetAtDocumentEnd })),
  batch: fc.record({ shards: fc.integer({ min: 1, max: 3 }), lanesPerShard: fc.integer({ min: 1, max: 2 }) }),
});

/** Documents of tokens that are all 1. */
function source(lengths: readonly number[]): DocumentSource {
  return {
    count: lengths.length,
    async *open(document, fromToken) {
      yield { tokens: new Array<number>(Math.max(0, (lengths[document] ?? 0) - fromToken)).fill(1) };
    },
    close: () => Promise.resolve(),
  };
}

describe("stepsOfDocuments", () => {
  it("is the number of steps that are cut, for any documents and settings", async () => {
    await fc.assert(
      fc.asyncProperty(options, async ({ lengths, ...rest }) => {
        const least = Math.max(1, rest.data.minDocumentTokens);
        fc.pre(lengths.some((length) => length >= least));
        const cutter = new SegmentCutter({ ...rest, source: source(lengths) });
        let steps = 0;
        while (await cutter.next()) steps++;
        await cutter.close();
        assert.equal(stepsOfDocuments({ lengths, ...rest }, 10_000), steps);
        assert.equal(stepsOfDocuments({ lengths, ...rest }, 3), Math.min(3, steps));
      }),
      { numRuns: 500 },
    );
  });

  it("gives no step where every document is too short, and all where documents never end", () => {
    const rest = {
      seed: 1,
      tbptt: { segmentTokens: 4, segmentsPerStep: 1, resetAtDocumentEnd: true, sequence: "contiguous", curriculum: [] },
      batch: { shards: 1, lanesPerShard: 2 },
    } as const;
    const steps = (epochs: number, minDocumentTokens: number): number =>
      stepsOfDocuments({ ...rest, lengths: [5, 6], data: { epochs, minDocumentTokens, shuffle: true } }, 50);
    assert.equal(steps(1, 7), 0);
    assert.equal(steps(0, 7), 0);
    assert.equal(steps(0, 6), 50);
  });
});
