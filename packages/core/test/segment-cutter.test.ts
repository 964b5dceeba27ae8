import assert from "node:assert/strict";
import fc from "fast-check";
import {
  laneTokensPerStep,
  SegmentCutter,
  shuffledDocument,
  tbpttAt,
  type DocumentSource,
  type SegmentCutterOptions,
  type StepSegments,
  type TbpttSpec,
} from "@segue/core";

const EOS = 0;

/** Documents whose tokens are all different: document d's token t is 1000 (d + 1) + t. Read in chunks of varying size. */
function source(
  lengths: readonly number[],
  weightOf?: (token: number) => number,
): DocumentSource & { opened: number; closed: number } {
  const counts = { opened: 0, closed: 0 };
  return Object.assign(counts, {
    count: lengths.length,
    async *open(document: number, fromToken: number) {
      counts.opened++;
      try {
        const length = lengths[document]!;
        let at = fromToken;
        while (at < length) {
          const size = Math.min(length - at, 1 + ((document + at) % 4));
          const tokens = Array.from({ length: size }, (_, i) => 1000 * (document + 1) + at + i);
          yield weightOf ? { tokens, weights: tokens.map(weightOf) } : { tokens };
          yield { tokens: [] };
          at += size;
        }
      } finally {
        counts.closed++;
      }
    },
    close: () => Promise.resolve(),
  });
}

interface Settings {
  readonly lengths: readonly number[];
  readonly shards?: number;
  readonly lanesPerShard?: number;
  readonly segmentTokens?: number;
  readonly segmentsPerStep?: number;
  readonly segmentsPerChain?: number;
  readonly resetAtDocumentEnd?: boolean;
  readonly minDocumentTokens?: number;
  readonly epochs?: number;
  readonly shuffle?: boolean;
  readonly seed?: number;
  readonly sequence?: TbpttSpec["sequence"];
  readonly stateDropProbability?: number;
  readonly initialState?: TbpttSpec["initialState"];
  readonly curriculum?: TbpttSpec["curriculum"];
}

function options(settings: Settings): SegmentCutterOptions {
  const { lengths, shards = 1, lanesPerShard = 1, resetAtDocumentEnd = true } = settings;
  const { segmentTokens = 4, segmentsPerStep = 1, segmentsPerChain = 0 } = settings;
  const { sequence = "contiguous", stateDropProbability = 0, initialState = "zero", curriculum = [] } = settings;
  const { minDocumentTokens = 0, epochs = 1, shuffle = false, seed = 1 } = settings;
  return {
    source: source(lengths),
    eosId: EOS,
    seed,
    data: { minDocumentTokens, epochs, shuffle },
    tbptt: {
      segmentTokens,
      segmentsPerStep,
      segmentsPerChain,
      resetAtDocumentEnd,
      sequence,
      stateDropProbability,
      initialState,
      curriculum,
    },
    batch: { shards, lanesPerShard },
  };
}

async function cutAll(from: SegmentCutterOptions, limit = 1000): Promise<StepSegments[]> {
  const cutter = new SegmentCutter(from);
  const steps: StepSegments[] = [];
  for (let step = await cutter.next(); step && steps.length < limit; step = await cutter.next()) steps.push(step);
  await cutter.close();
  return steps;
}

/** One lane's row of every array, over all steps. */
function lane(steps: readonly StepSegments[], index: number, { batch, tbptt }: SegmentCutterOptions) {
  const row = <T extends Int32Array | Float32Array | Uint8Array>(
    pick: (step: StepSegments, shard: number) => T | undefined,
    missing: number,
  ) =>
    steps.flatMap((step) => {
      const tokens = laneTokensPerStep(tbpttAt(tbptt, step.step));
      const from = (index % batch.lanesPerShard) * tokens;
      const array = pick(step, Math.floor(index / batch.lanesPerShard));
      return array ? Array.from(array.subarray(from, from + tokens)) : new Array<number>(tokens).fill(missing);
    });
  return {
    tokens: row((step, shard) => step.shards[shard]!.tokens, 0),
    labels: row((step, shard) => step.shards[shard]!.labels, 0),
    weights: row((step, shard) => step.shards[shard]!.weights, 1),
    resets: row((step, shard) => step.shards[shard]!.resets, 0),
  };
}

/** A step's segments by lane and place in the step. */
function segmentsOf(step: StepSegments, { batch, tbptt }: SegmentCutterOptions) {
  const { segmentTokens, segmentsPerStep } = tbpttAt(tbptt, step.step);
  return Array.from({ length: batch.shards * batch.lanesPerShard }, (_, index) => {
    const { tokens, labels, weights } = lane([step], index, { batch, tbptt } as SegmentCutterOptions);
    return Array.from({ length: segmentsPerStep }, (_, segment) => {
      const part = (values: number[]): number[] => values.slice(segment * segmentTokens, (segment + 1) * segmentTokens);
      return { tokens: part(tokens), labels: part(labels), weights: part(weights) };
    });
  });
}

const settings = fc.record({
  lengths: fc.array(fc.integer({ min: 0, max: 30 }), { minLength: 1, maxLength: 12 }),
  shards: fc.integer({ min: 1, max: 3 }),
  lanesPerShard: fc.integer({ min: 1, max: 3 }),
  segmentTokens: fc.integer({ min: 2, max: 9 }),
  segmentsPerStep: fc.integer({ min: 1, max: 4 }),
  segmentsPerChain: fc.integer({ min: 0, max: 3 }),
  resetAtDocumentEnd: fc.boolean(),
  minDocumentTokens: fc.integer({ min: 0, max: 8 }),
  epochs: fc.integer({ min: 1, max: 3 }),
  shuffle: fc.boolean(),
  seed: fc.nat(),
});
/** Of a lane's training beside the plain one; a curriculum within the steps that {@link settings} lead to. */
const cures = fc.record({
  sequence: fc.constantFrom("contiguous", "unrelated"),
  stateDropProbability: fc.constantFrom(0, 0.3, 1),
  initialState: fc.constantFrom("zero", "noise"),
  curriculum: fc
    .uniqueArray(
      fc.record(
        {
          fromStep: fc.integer({ min: 1, max: 8 }),
          segmentTokens: fc.integer({ min: 2, max: 9 }),
          segmentsPerStep: fc.integer({ min: 1, max: 3 }),
          segmentsPerChain: fc.integer({ min: 0, max: 3 }),
        },
        { requiredKeys: ["fromStep"] },
      ),
      { maxLength: 3, selector: ({ fromStep }) => fromStep },
    )
    .map((stages) => stages.sort((a, b) => a.fromStep - b.fromStep)),
} satisfies Record<string, fc.Arbitrary<unknown>>);
const longEnough = ({ lengths, minDocumentTokens }: Settings) =>
  lengths.filter((length) => length >= Math.max(1, minDocumentTokens ?? 0));

describe("SegmentCutter", () => {
  it("cuts a lane into segments whose labels reach one token into the next", async () => {
    const from = options({ lengths: [5, 2] });
    const steps = await cutAll(from);
    assert.deepEqual(lane(steps, 0, from), {
      tokens: [1000, 1001, 1002, 1003, 1004, EOS, 2000, 2001, EOS, EOS, EOS, EOS].slice(0, 8),
      labels: [1001, 1002, 1003, 1004, EOS, 2000, 2001, EOS],
      weights: [1, 1, 1, 1, 1, 0, 1, 1],
      resets: [1, 0, 0, 0, 0, 0, 1, 0],
    });
    assert.deepEqual(
      steps.map(({ totalWeight }) => totalWeight),
      [4, 3],
    );
    assert.equal(steps[0]!.shards[0]!.weights, undefined);
  });

  it("joins documents without a reset when told so, and trains across the joint", async () => {
    const from = options({ lengths: [5, 2], resetAtDocumentEnd: false });
    const { weights, resets } = lane(await cutAll(from), 0, from);
    assert.deepEqual(weights, [1, 1, 1, 1, 1, 1, 1, 1]);
    assert.deepEqual(resets, [0, 0, 0, 0, 0, 0, 0, 0]);
  });

  it("zeroes the state when a chain is over, without losing the label across", async () => {
    const from = options({ lengths: [19], segmentsPerChain: 2 });
    const { weights, resets } = lane(await cutAll(from), 0, from);
    assert.deepEqual(
      resets.flatMap((reset, at) => (reset ? [at] : [])),
      [0, 8, 16],
    );
    assert.deepEqual(weights, [...new Array<number>(19).fill(1), 0]);
  });

  it("puts the same segments into steps of several, a chain's end inside a step included", async () => {
    const single = options({ lengths: [19, 40], segmentsPerChain: 2 });
    const several = options({ lengths: [19, 40], segmentsPerChain: 2, segmentsPerStep: 3 });
    const [singles, steps] = [await cutAll(single), await cutAll(several)];
    const [expected, cut] = [lane(singles, 0, single), lane(steps, 0, several)];
    const length = expected.tokens.length;
    assert.deepEqual([steps.length, length, cut.tokens.length], [5, 60, 60]);
    assert.deepEqual(cut, expected);
    const atStep = steps.map(({ cursor }) => cursor.lanes);
    const atSingle = singles.filter((_, index) => index % 3 === 2).map(({ cursor }) => cursor.lanes);
    assert.deepEqual(atStep, atSingle);
  });

  it("gives documents to lanes in order and pads dry lanes with weight 0", async () => {
    const from = options({ lengths: [3, 9, 3], lanesPerShard: 2 });
    const steps = await cutAll(from);
    // The label after the first end token lets lane 0 take the second document before lane 1 takes its first.
    assert.deepEqual(lane(steps, 0, from).tokens.slice(0, 8), [1000, 1001, 1002, EOS, 2000, 2001, 2002, 2003]);
    assert.deepEqual(lane(steps, 1, from).tokens.slice(0, 8), [3000, 3001, 3002, EOS, EOS, EOS, EOS, EOS]);
    assert.deepEqual(lane(steps, 1, from).weights, [1, 1, 1, ...new Array<number>(13).fill(0)]);
    assert.equal(steps.length, 4);
    assert.equal(steps.at(-1)!.cursor.counters.tokens, 14 + 4);
  });

  it("carries the source's weights to the labels", async () => {
    const from = { ...options({ lengths: [6] }), source: source([6], (token) => token % 10) };
    const [step] = await cutAll(from);
    assert.deepEqual(Array.from(step!.shards[0]!.weights!), [1, 2, 3, 4]);
    assert.equal(step!.totalWeight, 10);
  });

  it("drops documents that are too short and says how many", async () => {
    const from = options({ lengths: [2, 5, 0, 4, 3], minDocumentTokens: 4, epochs: 2 });
    const steps = await cutAll(from);
    assert.deepEqual(steps.at(-1)!.cursor.counters, { documentsRead: 4, documentsDroppedShort: 6, tokens: 22 });
  });

  it("refuses data that has no document long enough", async () => {
    for (const epochs of [0, 1, 5]) {
      for (const lengths of [[2, 3], []]) {
        const cutter = new SegmentCutter(options({ lengths, minDocumentTokens: 4, epochs }));
        await assert.rejects(cutter.next(), { code: "NO_DOCUMENTS" });
      }
    }
  });

  it("never ends with epochs 0, each epoch in another order", async () => {
    const from = options({ lengths: [3, 3, 3, 3, 3, 3], epochs: 0, shuffle: true });
    const { tokens } = lane(await cutAll(from, 30), 0, from);
    const order = tokens.filter((_, at) => at % 4 === 0).map((token) => token / 1000);
    const epochs = [0, 1, 2, 3, 4].map((epoch) => order.slice(6 * epoch, 6 * epoch + 6));
    for (const epoch of epochs) assert.deepEqual([...epoch].sort(), [1, 2, 3, 4, 5, 6]);
    assert.ok(new Set(epochs.map(String)).size > 1);
  });

  it("trains every token of every document exactly once an epoch, in order, whatever the shape", async () => {
    await fc.assert(
      fc.asyncProperty(settings, async (given) => {
        const kept = longEnough(given);
        fc.pre(kept.length > 0);
        const from = options(given);
        const steps = await cutAll(from);
        const trained = new Map<number, number>();
        const inputs = new Map<number, number>();
        const count = (map: Map<number, number>, token: number) => map.set(token, (map.get(token) ?? 0) + 1);
        let weightSum = 0;
        for (let index = 0; index < given.shards * given.lanesPerShard; index++) {
          const { tokens, labels, weights, resets } = lane(steps, index, from);
          tokens.forEach((token, at) => {
            if (token !== EOS) count(inputs, token);
            // The label is the token that follows on the same lane, across segments too.
            if (at + 1 < tokens.length) assert.equal(labels[at], tokens[at + 1]);
            const label = labels[at]!;
            const start = label !== EOS && label % 1000 === 0;
            if (weights[at]) count(trained, label);
            if (given.resetAtDocumentEnd && start) assert.equal(weights[at], 0);
            // Within a document, tokens come in order.
            if (token !== EOS && label !== EOS && weights[at] && !start) assert.equal(label, token + 1);
            const chainReset = given.segmentsPerChain > 0 && at % (given.segmentTokens * given.segmentsPerChain) === 0 && at > 0;
            const documentReset = given.resetAtDocumentEnd && token !== EOS && token % 1000 === 0;
            assert.equal(resets[at] === 1, chainReset || documentReset);
            weightSum += weights[at]!;
          });
        }
        given.lengths.forEach((length, document) => {
          const keep = length >= Math.max(1, given.minDocumentTokens);
          for (let t = 0; t < length; t++) {
            const token = 1000 * (document + 1) + t;
            assert.equal(inputs.get(token) ?? 0, keep ? given.epochs : 0, `token ${token} as input`);
            if (t > 0) assert.equal(trained.get(token) ?? 0, keep ? given.epochs : 0, `token ${token} as label`);
          }
        });
        // Each document's end is trained too.
        assert.equal(trained.get(EOS), kept.length * given.epochs);
        assert.equal(
          weightSum,
          steps.reduce((sum, { totalWeight }) => sum + totalWeight, 0),
        );
      }),
      { numRuns: 300 },
    );
  });

  it("continues identically from the cursor of any step, after a trip through JSON", async () => {
    await fc.assert(
      fc.asyncProperty(settings, cures, async (plain, cured) => {
        const given = { ...plain, ...cured };
        fc.pre(longEnough(given).length > 0);
        const whole = await cutAll(options(given));
        for (const { cursor } of whole) {
          const rest = await cutAll({ ...options(given), cursor: JSON.parse(JSON.stringify(cursor)) as typeof cursor });
          assert.deepEqual(rest, whole.slice(cursor.step));
        }
      }),
      { numRuns: 60 },
    );
  });

  it("passes states on between documents: the same segments, none after the one before it", async () => {
    await fc.assert(
      fc.asyncProperty(settings, cures, async (plain, { curriculum }) => {
        // In one epoch, so that no document is on two tapes.
        const given = { ...plain, epochs: 1, curriculum };
        const lanes = given.shards * given.lanesPerShard;
        fc.pre(longEnough(given).length > 0 && lanes > 1);
        const passing = options({ ...given, sequence: "unrelated", resetAtDocumentEnd: false });
        const apart = options({ ...given, resetAtDocumentEnd: true });
        const [passed, contiguous] = [await cutAll(passing), await cutAll(apart)];
        const sorted = (steps: readonly StepSegments[], from: SegmentCutterOptions): string[] =>
          steps.flatMap((step) => segmentsOf(step, from).flatMap((row) => row.map((segment) => JSON.stringify(segment)))).sort();
        assert.deepEqual(sorted(passed, passing), sorted(contiguous, apart));
        for (let index = 0; index < lanes; index++) {
          const row = passed.flatMap((step) => segmentsOf(step, passing)[index] ?? []);
          row.slice(1).forEach((segment, at) => {
            const next = row[at]!.labels.at(-1)!;
            if (next !== EOS) assert.notEqual(segment.tokens[0], next);
          });
        }
        // Only chains end.
        if (given.segmentsPerChain === 0 && curriculum.length === 0) {
          assert.ok(passed.every(({ shards }) => shards.every(({ resets }) => resets === undefined)));
        }
      }),
      { numRuns: 150 },
    );
  });

  it("masks the first token of a document where states are passed on, and trains every other", async () => {
    const from = options({ lengths: [3, 3, 3, 3], lanesPerShard: 2, sequence: "unrelated", resetAtDocumentEnd: false });
    const steps = await cutAll(from);
    // Lane 1 goes on with lane 0's first document.
    assert.deepEqual(lane(steps, 0, from).tokens.slice(0, 8), [1000, 1001, 1002, EOS, 4000, 4001, 4002, EOS]);
    assert.deepEqual(lane(steps, 1, from).tokens.slice(0, 8), [3000, 3001, 3002, EOS, 2000, 2001, 2002, EOS]);
    assert.deepEqual(lane(steps, 0, from).weights.slice(0, 4), [1, 1, 1, 0]);
  });

  it("drops states before segments at random, whatever the number of lanes, and a chain begins there", async () => {
    const given = { lengths: [400, 400, 400], stateDropProbability: 0.25, segmentsPerChain: 3, resetAtDocumentEnd: false };
    const droppedOf = async (lanesPerShard: number): Promise<number[]> => {
      const from = options({ ...given, lanesPerShard });
      const { resets } = lane(await cutAll(from, 100), 0, from);
      return resets.flatMap((reset, at) => (reset ? [at] : []));
    };
    const dropped = await droppedOf(1);
    assert.ok(dropped.every((at) => at % 4 === 0));
    // Chains are at most 3 segments, a quarter ends earlier at each.
    const lengths = dropped.slice(1).map((at, index) => (at - dropped[index]!) / 4);
    assert.deepEqual([...new Set(lengths)].sort(), [1, 2, 3]);
    const ended = lengths.filter((length) => length < 3).length / lengths.length;
    assert.ok(ended > 0.25 && ended < 0.65, `${ended} of ${lengths.length} chains end early, expected 0.44`);
    assert.deepEqual(await droppedOf(3), dropped);
    const always = options({ ...given, segmentsPerStep: 2, stateDropProbability: 1 });
    const { resets } = lane(await cutAll(always, 4), 0, always);
    assert.ok(resets.every((reset, at) => reset === (at % 4 === 0 ? 1 : 0)));
  });

  it("marks the start of a lane's first chain only where it does not start from zero anyway", async () => {
    for (const [initialState, expected] of [["zero", [8, 16]] as const, ["noise", [0, 8, 16]] as const]) {
      const from = options({ lengths: [20], segmentsPerChain: 2, resetAtDocumentEnd: false, initialState });
      const { resets } = lane(await cutAll(from), 0, from);
      assert.deepEqual(
        resets.flatMap((reset, at) => (reset ? [at] : [])),
        expected,
      );
    }
  });

  it("changes the shape of its steps with the curriculum and goes on where it was", async () => {
    const curriculum = [
      { fromStep: 2, segmentTokens: 6, segmentsPerChain: 2 },
      { fromStep: 4, segmentsPerStep: 3 },
    ];
    const from = options({ lengths: [60], curriculum });
    const steps = await cutAll(from);
    assert.deepEqual(
      steps.map(({ shards }) => shards[0]!.tokens.length),
      [4, 4, 6, 6, 18, 18, 18],
    );
    const { tokens, resets } = lane(steps, 0, from);
    assert.deepEqual(
      tokens.slice(0, 60),
      Array.from({ length: 60 }, (_, at) => 1000 + at),
    );
    // The chain of the first stage goes on; it is over when it has two segments.
    assert.deepEqual(
      resets.flatMap((reset, at) => (reset ? [at] : [])),
      [0, 8, 20, 32, 44, 56, 68],
    );
  });

  it("closes what it has opened", async () => {
    const from = options({ lengths: [50, 50, 50, 1], lanesPerShard: 3, minDocumentTokens: 2 });
    const cutter = new SegmentCutter(from);
    await cutter.next();
    await cutter.close();
    await cutter.close();
    const { opened, closed } = from.source as ReturnType<typeof source>;
    assert.deepEqual([opened, closed], [3, 3]);
    assert.equal(await cutter.next(), undefined);
  });

  it("refuses a cursor of another shape", () => {
    const cursor = { step: 0, epoch: 0, taken: 0, lanes: [], counters: { documentsRead: 0, documentsDroppedShort: 0, tokens: 0 } };
    assert.throws(() => new SegmentCutter({ ...options({ lengths: [1] }), cursor }), { code: "CURSOR_MISMATCH" });
  });
});

describe("shuffledDocument", () => {
  it("is a permutation for every count, different by seed and epoch", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 300 }), fc.nat(), fc.nat(), (count, seed, epoch) => {
        const order = Array.from({ length: count }, (_, position) => shuffledDocument(position, count, seed, epoch));
        assert.deepEqual(
          [...order].sort((a, b) => a - b),
          Array.from({ length: count }, (_, i) => i),
        );
      }),
    );
    const order = (seed: number, epoch: number) =>
      Array.from({ length: 20 }, (_, position) => shuffledDocument(position, 20, seed, epoch)).join();
    assert.equal(new Set([order(0, 0), order(1, 0), order(0, 1)]).size, 3);
  });

  it("spreads neighbours over a large source", () => {
    const first = Array.from({ length: 1000 }, (_, position) => shuffledDocument(position, 1_000_000, 3, 0));
    assert.equal(new Set(first).size, 1000);
    const mean = first.reduce((sum, document) => sum + document, 0) / 1000;
    assert.ok(Math.abs(mean - 500_000) < 40_000, `${mean}`);
  });
});
