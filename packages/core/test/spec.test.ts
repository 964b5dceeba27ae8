import assert from "node:assert/strict";
import {
  jobSpecToYaml,
  parseJobSpec,
  resolveVocabulary,
  SegueError,
  tokensPerStep,
  storedJobSpec,
  validateJobSpec,
  type JobSpecInput,
} from "@segue/core";

const minimal = {
  model: { layers: 2, dModel: 64, headDim: 32, dState: 64 },
  data: { passkey: {} },
  tbptt: { segmentTokens: 256, segmentsPerChain: 0 },
  batch: { shards: 4, lanesPerShard: 2 },
  train: { steps: 100 },
} satisfies JobSpecInput;

function violationsOf(action: () => unknown): Record<string, string> {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof SegueError, String(error));
    assert.equal(error.code, "SPEC_INVALID");
    assert.equal(error.status, "INVALID_ARGUMENT");
    for (const { field, description } of error.violations ?? []) assert.ok(error.message.includes(description), field);
    return Object.fromEntries((error.violations ?? []).map(({ field, description }) => [field, description]));
  }
  assert.fail("was accepted");
}

/** The minimal spec with one section's settings replaced or added. */
function withSection(section: keyof JobSpecInput, settings: unknown): unknown {
  const present = (minimal as Record<string, unknown>)[section];
  const merged =
    typeof settings === "object" && !Array.isArray(settings) && settings !== null
      ? { ...(present as object), ...settings }
      : settings;
  return { ...minimal, [section]: merged };
}

describe("job spec", () => {
  it("fills in the documented defaults", () => {
    const { spec, warnings } = validateJobSpec(minimal);
    assert.deepEqual(warnings, []);
    assert.equal(spec.model.vocab, 256);
    assert.equal(spec.optimizer.learningRate, 5e-4);
    assert.equal(spec.data.minDocumentTokens, 0);
    assert.deepEqual(spec.schedule, { warmupSteps: 10, decaySteps: 10, decay: "linear", finalRatio: 0, revision: 2 });
    assert.deepEqual(spec.workers, { min: 1, max: 4, stragglerFactor: 2 });
    const files = validateJobSpec({ ...minimal, data: { paths: ["a.txt"] }, train: { steps: 1_000_000 } }).spec;
    assert.equal(files.data.minDocumentTokens, 4096);
    assert.deepEqual([files.schedule.warmupSteps, files.schedule.decaySteps], [1000, 100_000]);
  });

  it("keeps the learning rates of jobs that an earlier version stored", () => {
    const { spec } = validateJobSpec(minimal);
    const { revision, ...schedule } = spec.schedule;
    assert.equal(revision, 2);
    assert.deepEqual(storedJobSpec({ ...spec, schedule }), { ...spec, schedule: { ...schedule, revision: 1 } });
    assert.deepEqual(storedJobSpec(spec), spec);
  });

  it("turns tokens into steps, rounding up", () => {
    for (const segmentsPerStep of [1, 3]) {
      const stepTokens = 4 * 2 * segmentsPerStep * 256;
      const tbptt = { ...minimal.tbptt, segmentsPerStep };
      const steps = (tokens: number): number => validateJobSpec({ ...minimal, tbptt, train: { tokens } }).spec.train.steps;
      assert.deepEqual([steps(1), steps(stepTokens), steps(stepTokens + 1)], [1, 1, 2]);
      assert.equal(tokensPerStep(validateJobSpec({ ...minimal, tbptt }).spec), stepTokens);
    }
  });

  it("is idempotent and survives YAML", () => {
    const { spec } = validateJobSpec({ ...minimal, evaluations: [{ name: "a" }, { name: "b", passkey: { lengths: [512] } }] });
    assert.deepEqual(validateJobSpec(spec), { spec, warnings: [] });
    assert.deepEqual(parseJobSpec(jobSpecToYaml(spec)), { spec, warnings: [] });
    const preset = validateJobSpec({ ...minimal, model: { preset: "mamba2-370m", layers: 4 } }).spec;
    assert.deepEqual([preset.model.layers, preset.model.dModel, preset.model.dState], [4, 1024, 128]);
    assert.deepEqual(validateJobSpec(preset).spec, preset);
  });

  it("treats undefined as absent", () => {
    const { spec } = validateJobSpec({ ...minimal, seed: undefined, optimizer: { beta1: undefined, beta2: 0.5 } });
    assert.deepEqual([spec.seed, spec.optimizer.beta1, spec.optimizer.beta2], [0, 0.9, 0.5]);
  });

  it("leaves the vocabulary of a tokenizer file open until it is known", () => {
    const { spec } = validateJobSpec(withSection("tokenizer", { kind: "huggingface", file: "tokenizer.json" }));
    assert.equal(spec.model.vocab, 0);
    assert.equal(resolveVocabulary(spec, 50_277).model.vocab, 50_288);
    const given = { ...spec, model: { ...spec.model, vocab: 1000 } };
    assert.equal(resolveVocabulary(given, 1000), given);
    assert.match(violationsOf(() => resolveVocabulary(given, 1001))["model.vocab"]!, /at least the tokenizer's 1001/);
  });

  const refused: [string, unknown, string, RegExp][] = [
    ["a text", "hello", "", /mapping of settings/],
    ["a list", [], "", /but is a list/],
    ["an unknown section", { ...minimal, modle: {} }, "modle", /did you mean model\?/],
    ["an unknown setting", withSection("tbptt", { segmentToken: 3 }), "tbptt.segmentToken", /did you mean segmentTokens\?/],
    ["a misspelt gradient", withSection("tbptt", { gradient: "ful" }), "tbptt.gradient", /one of truncated, full, but is "ful"/],
    ["steps of no segment", withSection("tbptt", { segmentsPerStep: 0 }), "tbptt.segmentsPerStep", /whole number from 1 to 4096/],
    [
      "a step of too many segments",
      withSection("tbptt", { segmentsPerStep: 4096 }),
      "batch.lanesPerShard",
      /segmentTokens times tbptt.segmentsPerStep must not exceed 1048576 tokens a shard, but is 2097152/,
    ],
    ["a setting like none", withSection("rounds", { colour: 3 }), "rounds.colour", /valid here: targetMs, maxSteps/],
    [
      "a setting in snake case",
      withSection("batch", { lanes_per_shard: 3 }),
      "batch.lanes_per_shard",
      /did you mean lanesPerShard\?/,
    ],
    ["an empty section", withSection("optimizer", null), "optimizer", /nothing is written/],
    ["a fraction of a layer", withSection("model", { layers: 1.5 }), "model.layers", /whole number from 1 to 256, but is 1.5/],
    ["a number as text", withSection("model", { dModel: "64" }), "model.dModel", /but is "64"/],
    ["not a number", withSection("optimizer", { beta1: Number.NaN }), "optimizer.beta1", /must be a number/],
    ["an infinite rate", withSection("optimizer", { learningRate: Infinity }), "optimizer.learningRate", /but is Infinity/],
    ["an unknown preset", withSection("model", { preset: "mamba3" }), "model.preset", /mamba2-130m/],
    ["no size", { ...minimal, model: {} }, "model.dModel", /is missing/],
    [
      "heads that do not divide",
      withSection("model", { headDim: 48 }),
      "model.headDim",
      /nearest that does is 32|nearest that does is 64/,
    ],
    ["groups that do not divide", withSection("model", { groups: 3 }), "model.groups", /number of heads, 4/],
    ["another convolution width", withSection("model", { dConv: 3 }), "model.dConv", /must be 4/],
    ["too small a vocabulary", withSection("model", { vocab: 100 }), "model.vocab", /at least the byte tokenizer's 256/],
    ["too many parameters", withSection("model", { layers: 256, dModel: 16384 }), "model", /more than/],
    ["no data", { ...minimal, data: {} }, "data", /data.paths or data.passkey/],
    ["two sources", withSection("data", { paths: ["x"] }), "data.passkey", /excludes data.paths/],
    ["an empty path", withSection("data", { paths: [""] }), "data.paths[0]", /must not be empty/],
    [
      "depths in the wrong order",
      withSection("data", { passkey: { minDepth: 0.9 } }),
      "data.passkey.minDepth",
      /must not exceed maxDepth/,
    ],
    ["documents all dropped", withSection("data", { minDocumentTokens: 4096 }), "data.minDocumentTokens", /drop every document/],
    ["no tokenizer file", withSection("tokenizer", { kind: "huggingface" }), "tokenizer.file", /tokenizer.json/],
    ["an unknown tokenizer", withSection("tokenizer", { kind: "bpe" }), "tokenizer.kind", /bytes, huggingface/],
    ["an end token out of range", withSection("tokenizer", { eosId: 256 }), "tokenizer.eosId", /below/],
    ["no budget", { ...minimal, train: {} }, "train", /train.steps or train.tokens/],
    ["two budgets", withSection("train", { tokens: 5 }), "train.tokens", /excludes train.steps/],
    ["a zero budget", { ...minimal, train: { steps: 0 } }, "train.steps", /from 1/],
    [
      "a schedule longer than the job",
      withSection("schedule", { warmupSteps: 100 }),
      "schedule",
      /must not exceed the job's 100 steps/,
    ],
    ["an exponential decay to zero", withSection("schedule", { decay: "exponential" }), "schedule.finalRatio", /above 0/],
    ["a shard too big for one message", withSection("batch", { lanesPerShard: 65536 }), "batch.lanesPerShard", /tokens a shard/],
    ["a step too big", { ...minimal, batch: { shards: 4096, lanesPerShard: 1024 } }, "batch.shards", /tokens a step/],
    ["more workers than shards", withSection("workers", { max: 5 }), "workers.max", /batch.shards, 4/],
    ["more workers at least than at most", withSection("workers", { min: 3, max: 2 }), "workers.min", /workers.max, 2/],
    ["two evaluations of one name", withSection("evaluations", [{}, {}]), "evaluations[1].name", /used twice/],
    [
      "a depth beyond the end",
      withSection("evaluations", [{ passkey: { depths: [1.1] } }]),
      "evaluations[0].passkey.depths[0]",
      /from 0 to 1/,
    ],
    [
      "a length twice",
      withSection("evaluations", [{ passkey: { lengths: [512, 512] } }]),
      "evaluations[0].passkey.lengths",
      /512 twice/,
    ],
    ["a name that is a path", { ...minimal, name: "../x" }, "name", /letters, digits/],
    ["a negative seed", { ...minimal, seed: -1 }, "seed", /from 0 to 4294967295/],
  ];
  for (const [what, input, field, pattern] of refused) {
    it(`refuses ${what}`, () => {
      const violations = violationsOf(() => validateJobSpec(input));
      assert.match(violations[field] ?? `no violation of "${field}" in ${JSON.stringify(violations)}`, pattern);
    });
  }

  it("reports every problem at once and none twice", () => {
    const violations = violationsOf(() =>
      validateJobSpec({
        ...minimal,
        sede: 1,
        model: { ...minimal.model, layers: 0, headDim: 48 },
        train: { steps: 5, tokens: 5, engine: "gpu" },
        workers: { min: 9 },
      }),
    );
    assert.deepEqual(Object.keys(violations).sort(), [
      "model.headDim",
      "model.layers",
      "sede",
      "train.engine",
      "train.tokens",
      "workers.min",
    ]);
  });

  it("names line and column of text that is not YAML", () => {
    assert.match(violationsOf(() => parseJobSpec("name: x\nmodel: {layers: [\n"))[""]!, /line 3, column 1/);
    assert.match(violationsOf(() => parseJobSpec("name: x\nname: y\n"))[""]!, /line 2, column 1: Map keys must be unique/);
    assert.match(violationsOf(() => parseJobSpec("name: *nowhere"))[""]!, /nowhere/);
    assert.match(violationsOf(() => parseJobSpec("x".repeat(2_000_000)))[""]!, /characters/);
  });

  it("warns of a full gradient that has nothing to flow through", () => {
    const warning = (tbptt: object): string =>
      validateJobSpec(withSection("tbptt", { gradient: "full", ...tbptt })).warnings.join();
    assert.match(warning({}), /no effect on steps of one segment: set tbptt.segmentsPerStep/);
    assert.match(warning({ segmentsPerStep: 3, carrySsm: false, carryConv: false }), /carrySsm and carryConv off every segment/);
    assert.match(warning({ segmentsPerStep: 3, segmentsPerChain: 1 }), /with segmentsPerChain 1 every segment starts from zero/);
    assert.equal(warning({ segmentsPerStep: 3, carrySsm: false }), "");
  });

  it("warns of settings without effect", () => {
    const { warnings } = validateJobSpec({
      ...minimal,
      tbptt: { segmentTokens: 256, segmentsPerChain: 3 },
      tokenizer: { file: "x.json" },
      checkpoints: { everySteps: 200 },
      train: { steps: 100, precision: "bf16" },
    });
    assert.equal(warnings.length, 4);
    assert.match(warnings.join("\n"), /tokenizer.file has no effect[\s\S]*bf16[\s\S]*everySteps[\s\S]*longer than a chain/);
  });
});
