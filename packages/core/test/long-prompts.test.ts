import assert from "node:assert/strict";
import { corpusText, validateJobSpec, type DocumentSource, type EvaluationSpec } from "@segue/core";

const specOf = (evaluation: object, model: object = {}) => ({
  model: { layers: 1, dModel: 64, ...model },
  data: { passkey: {} },
  tbptt: { segmentTokens: 256, segmentsPerChain: 3 },
  batch: { shards: 1, lanesPerShard: 1 },
  train: { steps: 10 },
  evaluations: [evaluation],
});

const violations = (input: object): string[] => {
  try {
    validateJobSpec(input);
    return [];
  } catch (error) {
    return (error as { violations: { field: string; description: string }[] }).violations.map(
      ({ field, description }) => `${field} ${description}`,
    );
  }
};

const filled = (evaluation: object): EvaluationSpec => validateJobSpec(specOf(evaluation)).spec.evaluations[0]!;

describe("evaluations of state statistics", () => {
  it("follow the paper where they say nothing, and the job's training length", () => {
    const effective = validateJobSpec(specOf({ stateStatistics: {} })).spec;
    const { name, stateStatistics } = effective.evaluations[0]!;
    assert.equal(name, "state-statistics");
    assert.deepEqual(stateStatistics, {
      ...{ tokens: 32768, everyTokens: 128, histogramTokens: [8192, 32768], prompt: "newlines", seed: 0, trainTokens: 768 },
    });
    assert.deepEqual(validateJobSpec(effective).spec, effective);
    assert.deepEqual(filled({ stateStatistics: { tokens: 1 } }).stateStatistics!.histogramTokens, [1]);
  });

  it("are refused where they would not fit, or lie beyond the text", () => {
    const large = specOf({ stateStatistics: { tokens: 2 ** 20, everyTokens: 8 } }, { layers: 64, dModel: 2560 });
    assert.match(violations(large)[0]!, /stateStatistics\.everyTokens must be larger, or .* would take \d+ bytes/);
    const beyond = specOf({ stateStatistics: { tokens: 100, histogramTokens: [101] } });
    assert.match(violations(beyond)[0]!, /histogramTokens must lie within the 100 tokens, but one is 101/);
    assert.match(violations(specOf({ stateStatistics: {}, lossByPosition: {} }))[0]!, /lossByPosition excludes stateStatistics/);
  });
});

describe("evaluations of effective remembrance", () => {
  it("read documents, from starts that lie equally far apart", () => {
    const { effectiveRemembrance } = filled({ effectiveRemembrance: { tokens: 64 } });
    const starts = Array.from({ length: 15 }, (_, index) => 4 * (index + 1));
    assert.deepEqual(effectiveRemembrance, { tokens: 64, starts, prompt: "corpus", prompts: 8, seed: 0 });
  });

  it("are refused where nothing would be left of the context, or a start is there twice", () => {
    const found = (settings: object): string => violations(specOf({ effectiveRemembrance: settings }))[0] ?? "";
    assert.match(found({ tokens: 10, starts: [0, 10] }), /starts must be less than tokens, 10, but one is 10/);
    assert.match(found({ starts: [5, 5] }), /starts holds 5 twice/);
    const wide = { tokens: 2 ** 26, bucketTokens: 2 ** 16, trainTokens: 2 ** 16 };
    assert.match(found({ prompt: "newlines" }), /prompts must be 1 for newlines/);
    assert.match(violations(specOf({ lossByPosition: { ...wide, prompt: "corpus" } }))[0]!, /at most 16777216 of the corpus/);
  });
});

describe("corpusText", () => {
  const documents = [[1, 2, 3], [], [4], [5, 6, 7, 8, 9]];
  const source: DocumentSource = {
    count: documents.length,
    open: async function* (document) {
      for (const token of documents[document]!) yield await Promise.resolve({ tokens: [token] });
    },
    close: () => Promise.resolve(),
  };
  const text = async (index: number, tokens: number, least = 0, seed = 1): Promise<number[]> => [
    ...(await corpusText(source, 0, least, { seed, index, tokens })),
  ];

  it("begins with a document and joins those behind it, without the empty ones, by the end token", async () => {
    const cycle = "1 2 3 0 4 0 5 6 7 8 9 0";
    const begun = new Set<number>();
    for (let index = 0; index < 20; index++) {
      const found = await text(index, 20);
      assert.ok(`${cycle} ${cycle} ${cycle}`.includes(found.join(" ")), found.join(" "));
      begun.add(found[0]!);
      assert.deepEqual(await text(index, 20), found);
      assert.deepEqual(await text(index, 7), found.slice(0, 7));
    }
    assert.deepEqual([...begun].sort(), [1, 4, 5]);
  });

  it("leaves out what training drops for its length, and says so when that is everything", async () => {
    assert.deepEqual([...new Set(await text(3, 30, 4))].sort(), [0, 5, 6, 7, 8, 9]);
    await assert.rejects(text(0, 10, 6), { code: "NO_DOCUMENTS" });
  });

  it("draws from a source without end", async () => {
    const opened: number[] = [];
    const endless: DocumentSource = {
      ...source,
      count: Infinity,
      open: async function* (document) {
        opened.push(document);
        yield await Promise.resolve({ tokens: [document % 100] });
      },
    };
    await corpusText(endless, 0, 0, { seed: 1, index: 0, tokens: 4 });
    assert.equal(opened[1], opened[0]! + 1);
  });
});
