import assert from "node:assert/strict";
import fc from "fast-check";
import {
  editJobSpec,
  jobSpecToYaml,
  parseJobSpec,
  segmentsBefore,
  SegueError,
  stageEnd,
  stepsForTokens,
  tbpttAt,
  tbpttStages,
  tokensBefore,
  tokensPerStep,
  trainingLength,
  validateJobSpec,
  type JobSpec,
} from "@segue/core";

const LANES = 8;

const inputOf = (tbptt: object, train: object = { steps: 100 }, batch: object = {}): object => ({
  model: { layers: 1, dModel: 64, headDim: 32, dState: 16 },
  data: { passkey: { documentTokens: 300 } },
  tbptt: { segmentTokens: 64, segmentsPerChain: 0, ...tbptt },
  batch: { shards: 4, lanesPerShard: 2, ...batch },
  train,
});
const specOf = (...input: Parameters<typeof inputOf>): JobSpec => validateJobSpec(inputOf(...input)).spec;

const CURRICULUM = [
  { fromStep: 10, segmentTokens: 128 },
  { fromStep: 30, segmentsPerStep: 2, segmentsPerChain: 4 },
];

describe("the curriculum", () => {
  it("keeps what a stage does not give as it was before", () => {
    const { tbptt } = specOf({ curriculum: CURRICULUM });
    const shape = (step: number): number[] => {
      const { segmentTokens, segmentsPerStep, segmentsPerChain } = tbpttAt(tbptt, step);
      return [segmentTokens, segmentsPerStep, segmentsPerChain];
    };
    assert.deepEqual([0, 9, 10, 29, 30, 1e9].map(shape), [
      [64, 1, 0],
      [64, 1, 0],
      [128, 1, 0],
      [128, 1, 0],
      [128, 2, 4],
      [128, 2, 4],
    ]);
    assert.deepEqual(
      tbpttStages(tbptt).map(({ fromStep, curriculum }) => [fromStep, curriculum]),
      [
        [0, []],
        [10, []],
        [30, []],
      ],
    );
    assert.deepEqual(
      [0, 9, 10, 30].map((step) => stageEnd(tbptt, step)),
      [10, 10, 30, Infinity],
    );
    assert.equal(trainingLength(tbptt), 512);
    assert.equal(trainingLength({ ...tbptt, carrySsm: false }), 128);
  });

  it("counts tokens and segments as if step by step, and finds the steps for a number of tokens", () => {
    const stage = fc.record({ segmentTokens: fc.integer({ min: 2, max: 50 }), segmentsPerStep: fc.integer({ min: 1, max: 4 }) });
    const fromSteps = fc.uniqueArray(fc.integer({ min: 1, max: 12 }), { maxLength: 3 }).map((steps) => steps.sort((a, b) => a - b));
    fc.assert(
      fc.property(
        stage,
        fromSteps,
        fc.array(stage, { minLength: 3, maxLength: 3 }),
        fc.nat(3000),
        (base, steps, stages, tokens) => {
          const curriculum = steps.map((fromStep, index) => ({ fromStep, ...stages[index]! }));
          const spec = { batch: { shards: 4, lanesPerShard: 2 }, tbptt: { ...base, curriculum } };
          let [sum, segments] = [0, 0];
          for (let step = 0; step < 20; step++) {
            assert.deepEqual([tokensBefore(spec, step), segmentsBefore(spec.tbptt, step)], [sum, segments]);
            sum += tokensPerStep(spec, step);
            segments += tbpttAt(spec.tbptt, step).segmentsPerStep;
          }
          const needed = stepsForTokens(spec, tokens);
          assert.ok(tokensBefore(spec, needed) >= tokens);
          assert.ok(needed === 0 || tokensBefore(spec, needed - 1) < tokens);
        },
      ),
    );
  });

  it("turns train.tokens into steps", () => {
    const tokens = LANES * (10 * 64 + 20 * 128 + 3 * 256) - 1;
    assert.equal(specOf({ curriculum: CURRICULUM }, { tokens }).train.steps, 33);
  });

  it("survives YAML and a change of the job's steps", () => {
    const curriculum = CURRICULUM.map(({ fromStep }, stage) => ({ fromStep, segmentTokens: 128 << stage }));
    const spec = specOf({ curriculum, stateDropProbability: 0.1, initialState: "fittedNoise", sequence: "unrelated" });
    assert.equal(spec.tbptt.resetAtDocumentEnd, false);
    assert.deepEqual(parseJobSpec(jobSpecToYaml(spec)).spec, spec);
    const edited = editJobSpec(spec, { "train.steps": "25" }, 20);
    assert.deepEqual(edited.spec.tbptt, spec.tbptt);
    assert.match(edited.warnings.join(), /curriculum\[1\] is never reached: the job has 25 steps/);
    assert.throws(() => editJobSpec(spec, { "tbptt.curriculum": "[]" }, 20), { code: "SETTING_NOT_EDITABLE" });
  });
});

describe("the settings of states", () => {
  const refused: [string, object, string, RegExp, object?][] = [
    [
      "a curriculum out of order",
      { curriculum: [{ fromStep: 9 }, { fromStep: 9 }] },
      "curriculum[1].fromStep",
      /above .* 9, but is 9/,
    ],
    ["a stage without a first step", { curriculum: [{ segmentTokens: 64 }] }, "curriculum[0].fromStep", /whole number from 1/],
    ["a stage from the first step", { curriculum: [{ fromStep: 0 }] }, "curriculum[0].fromStep", /from 1 to/],
    [
      "a setting that has no stages",
      { curriculum: [{ fromStep: 9, carrySsm: false }] },
      "curriculum[0].carrySsm",
      /valid here: fromStep/,
    ],
    ["a probability above 1", { stateDropProbability: 1.5 }, "stateDropProbability", /number from 0 to 1/],
    [
      "resets between documents that pass states on",
      { sequence: "unrelated", resetAtDocumentEnd: true },
      "resetAtDocumentEnd",
      /false/,
    ],
    ["one lane that passes states on", { sequence: "unrelated" }, "sequence", /two lanes/, { shards: 1, lanesPerShard: 1 }],
    ["initial states that are not carried", { initialState: "noise", carrySsm: false }, "initialState", /segmentsPerChain 1/],
    [
      "chains that begin inside a step from noise",
      { initialState: "noise", segmentsPerStep: 2, segmentsPerChain: 3 },
      "segmentsPerChain",
      /multiple of segmentsPerStep, 2, .* where a step begins, but is 3/,
    ],
    [
      "states dropped inside a step of a later stage for noise",
      { initialState: "fittedNoise", stateDropProbability: 0.1, curriculum: [{ fromStep: 5, segmentsPerStep: 4 }] },
      "curriculum[0].segmentsPerStep",
      /must be 1 with tbptt.stateDropProbability/,
    ],
  ];
  for (const [what, tbptt, field, pattern, batch] of refused) {
    it(`refuse ${what}`, () => {
      assert.throws(
        () => specOf(tbptt, { steps: 100 }, batch),
        (error: unknown) => {
          assert.ok(error instanceof SegueError);
          const [violation, ...others] = error.violations ?? [];
          assert.deepEqual([violation?.field, others], [`tbptt.${field}`, []]);
          assert.match(violation!.description, pattern);
          return true;
        },
      );
    });
  }

  it("refuse a curriculum whose largest step is too large", () => {
    const curriculum = [
      { fromStep: 5, segmentTokens: 2 ** 20 },
      { fromStep: 6, segmentTokens: 64 },
    ];
    assert.throws(() => specOf({ curriculum }), /the most tokens of a lane in tbptt.curriculum must not exceed 1048576/);
  });

  it("warn of what has no effect", () => {
    const warnings = (tbptt: object): string => validateJobSpec(inputOf(tbptt)).warnings.join("\n");
    assert.match(warnings({ initialStateStd: 2 }), /initialStateStd has no effect with tbptt.initialState zero/);
    assert.equal(warnings({ initialStateStd: 2, initialState: "noise" }), "");
    const uncarried = { carrySsm: false, carryConv: false };
    assert.match(warnings({ ...uncarried, stateDropProbability: 0.5 }), /stateDropProbability has no effect/);
    assert.match(warnings({ ...uncarried, sequence: "unrelated" }), /passes nothing on/);
  });
});
