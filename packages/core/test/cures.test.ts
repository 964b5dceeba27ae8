import assert from "node:assert/strict";
import { cureKey, jobSpecToYaml, parseCure, parseJobSpec, SegueError, validateJobSpec, type CureSpec } from "@segue/core";

const withEvaluation = (evaluation: object, tbptt: object = {}) => ({
  model: { layers: 1, dModel: 16, headDim: 8, dState: 8 },
  data: { passkey: {} },
  tbptt: { segmentTokens: 512, segmentsPerChain: 2, ...tbptt },
  train: { steps: 10 },
  evaluations: [evaluation],
});
const curesOf = (evaluation: object, tbptt?: object): readonly CureSpec[] =>
  validateJobSpec(withEvaluation(evaluation, tbptt)).spec.evaluations[0]!.cures;

const violationsOf = (evaluation: object): Record<string, string> => {
  try {
    validateJobSpec(withEvaluation(evaluation));
  } catch (error) {
    if (error instanceof SegueError) {
      return Object.fromEntries((error.violations ?? []).map(({ field, description }) => [field, description]));
    }
    throw error;
  }
  return {};
};

describe("cures in a job spec", () => {
  it("are none where none are given", () => {
    assert.deepEqual(curesOf({ passkey: {} }), [{ kind: "none" }]);
    assert.deepEqual(curesOf({ lossByPosition: {} }), [{ kind: "none" }]);
  });

  it("take the paper's values and the training length, and survive YAML", () => {
    const kinds = ["none", "reduced", "normalised", "window", "longMamba"].map((kind) => ({ kind }));
    const evaluation = { lossByPosition: {}, cures: kinds };
    const filled: CureSpec[] = [
      { kind: "none" },
      { kind: "reduced", retention: 0.9999, insertion: 0.75 },
      { kind: "normalised", multiplier: 1, referenceTokens: 1024, everyTokens: 128 },
      { kind: "window", tokens: 1024, everyTokens: 128 },
      { kind: "longMamba", dtScale: 0.5 },
    ];
    assert.deepEqual(curesOf(evaluation), filled);
    assert.deepEqual(curesOf({ passkey: {}, cures: kinds }), filled);
    const { spec } = validateJobSpec(withEvaluation(evaluation));
    assert.deepEqual(parseJobSpec(jobSpecToYaml(spec)).spec, spec);
  });

  it("are corrected every so many tokens as divide the window, however long the training was", () => {
    const window = { passkey: {}, cures: [{ kind: "window" }] };
    assert.deepEqual(curesOf(window, { segmentTokens: 300, segmentsPerChain: 1 }), [
      { kind: "window", tokens: 300, everyTokens: 100 },
    ]);
    const loss = { lossByPosition: { trainTokens: 64 }, cures: [{ kind: "window" }] };
    assert.deepEqual(curesOf(loss), [{ kind: "window", tokens: 64, everyTokens: 64 }]);
  });

  it("are refused with settings that are not theirs, without a kind, or twice", () => {
    const cures = [
      { kind: "reduced", tokens: 5 },
      { retention: 0.5 },
      { kind: "window", tokens: 1000, everyTokens: 300 },
      { kind: "longMamba" },
      { kind: "longMamba", dtScale: 0.5 },
    ];
    const violations = violationsOf({ passkey: {}, cures });
    assert.deepEqual(Object.keys(violations).sort(), [
      "evaluations[0].cures[0].tokens",
      "evaluations[0].cures[1].kind",
      "evaluations[0].cures[1].retention",
      "evaluations[0].cures[2].everyTokens",
      "evaluations[0].cures[4]",
    ]);
    assert.match(
      violations["evaluations[0].cures[0].tokens"]!,
      /not a setting of the cure reduced, which has retention, insertion/,
    );
    assert.match(violations["evaluations[0].cures[2].everyTokens"]!, /must divide the window's 1000 tokens, but is 300/);
    assert.match(violations["evaluations[0].cures[4]"]!, /the same as evaluations\[0\]\.cures\[3\]/);
    assert.match(violationsOf({ cures: [{ kind: "windows" }] })["evaluations[0].cures[0].kind"]!, /must be one of none, reduced/);
    assert.match(violationsOf({ cures: [] })["evaluations[0].cures"]!, /1 to 64 entries/);
  });

  it("are refused where the state is not carried", () => {
    const control = { passkey: { carryState: false } };
    assert.match(
      violationsOf({ ...control, cures: [{ kind: "none" }, { kind: "window" }] })["evaluations[0].cures"]!,
      /but has window/,
    );
    assert.deepEqual(violationsOf({ ...control, cures: [{ kind: "none" }] }), {});
  });
});

describe("parseCure", () => {
  it("reads a kind and its settings in order", () => {
    assert.deepEqual(parseCure("none"), { kind: "none" });
    assert.deepEqual(parseCure("reduced"), { kind: "reduced" });
    assert.deepEqual(parseCure("reduced:0.9999,0.75"), { kind: "reduced", retention: 0.9999, insertion: 0.75 });
    assert.deepEqual(parseCure("window:2K"), { kind: "window", tokens: 2048 });
    assert.deepEqual(parseCure("normalised:1,4K,64"), {
      kind: "normalised",
      multiplier: 1,
      referenceTokens: 4096,
      everyTokens: 64,
    });
    assert.deepEqual(parseCure("LongMamba:0.2"), { kind: "longMamba", dtScale: 0.2 });
  });

  it("says what a kind takes when it is given something else", () => {
    assert.throws(() => parseCure("cured"), /must be one of none, reduced, normalised, window, longmamba, but is "cured"/);
    assert.throws(() => parseCure("reduced:0.9,0.5,1"), /takes numbers for retention, insertion after a colon/);
    assert.throws(() => parseCure("window:"), /takes numbers for tokens, everyTokens/);
    assert.throws(() => parseCure("none:1"), /takes no settings/);
  });
});

describe("cureKey", () => {
  it("differs where a setting differs", () => {
    const kinds = ["none", "reduced:0.9999,0.75", "reduced:0.999,0.75", "window:2K,64", "window:2K,128", "normalised:1,2K,128"];
    const keys = curesOf({ passkey: {}, cures: kinds.map(parseCure) }).map(cureKey);
    assert.equal(new Set(keys).size, kinds.length);
    assert.equal(keys[1], "reduced-0.9999-0.75");
  });
});
