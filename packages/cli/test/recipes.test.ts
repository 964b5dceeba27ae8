import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { parameterLayout, parseJobSpec, resolveVocabulary, tokensPerStep } from "@segue/core";
import { controlSpec, planDemo, plannedSpec } from "../src/demo/plan.js";
import { planStudy } from "../src/study/plan.js";
import { parseStudy } from "../src/study/study-spec.js";

const recipes = new URL("../../../recipes/", import.meta.url);
const read = (file: string) => parseJobSpec(readFileSync(new URL(file, recipes), "utf8"));

describe("recipes", () => {
  for (const file of readdirSync(recipes).filter((name) => name.endsWith(".yaml"))) {
    it(`${file} is a valid job spec without warnings`, () => assert.deepEqual(read(file).warnings, []));
  }

  for (const file of readdirSync(new URL("studies/", recipes))) {
    it(`studies/${file} is a valid study without warnings`, () => {
      const jobs = planStudy(parseStudy(readFileSync(new URL(`studies/${file}`, recipes), "utf8")));
      assert.deepEqual(
        jobs.flatMap(({ warnings }) => warnings),
        [],
      );
      assert.equal(new Set(jobs.map(({ idempotencyKey }) => idempotencyKey)).size, jobs.length);
    });
  }

  it("mamba2-130m has the parameters of the public model and the paper's tokens a step", () => {
    const { spec } = read("mamba2-130m.yaml");
    // GPT-NeoX has 50,277 tokens.
    assert.equal(parameterLayout(resolveVocabulary(spec, 50_277).model).size, 128_989_632);
    assert.equal(tokensPerStep(spec), 524_288);
  });

  it("passkey-demo asks for keys that lie beyond the segment of the question", () => {
    const { spec } = read("passkey-demo.yaml");
    const [evaluation] = spec.evaluations;
    assert.ok(evaluation?.passkey);
    const { lengths, depths, digits } = evaluation.passkey;
    assert.equal(digits, spec.data.passkey?.digits);
    const cross = lengths.flatMap((length) => depths.filter((depth) => length * (1 - depth) >= spec.tbptt.segmentTokens));
    assert.ok(cross.length >= 9, `${cross.length} cells need the carried state`);
  });
});

describe("planDemo", () => {
  const recipe = read("passkey-demo.yaml").spec;

  it("trains the whole recipe and its control where there is time for both", () => {
    const { steps } = recipe.train;
    assert.deepEqual(planDemo(recipe, 100_000, 240), { steps, isWhole: true, checkpointEvery: steps / 4, samples: 20 });
  });

  it("trains as much as the time allows on a slow engine, and evaluates less", () => {
    const plan = planDemo(recipe, 2_000, 240);
    assert.equal(plan.isWhole, false);
    assert.ok(2 * plan.steps * tokensPerStep(recipe) <= 2_000 * 240, "both jobs fit");
    assert.ok(plan.samples < 20 && plan.samples >= 1);
  });

  it("keeps a valid spec whatever the plan", () => {
    for (const speed of [10, 1_000, 50_000, 1e7]) {
      const spec = plannedSpec(recipe, planDemo(recipe, speed, 100));
      assert.ok(spec.schedule.warmupSteps + spec.schedule.decaySteps <= spec.train.steps);
      assert.ok(spec.checkpoints.everySteps >= 1);
    }
  });
});

describe("controlSpec", () => {
  const spec = plannedSpec(read("passkey-demo.yaml").spec, { steps: 800, isWhole: false, checkpointEvery: 200, samples: 5 });

  it("differs from the job in nothing but the carried state, the name and the number of workers", () => {
    const control = controlSpec(spec);
    assert.deepEqual([control.tbptt.carrySsm, control.tbptt.carryConv], [false, false]);
    assert.deepEqual(
      control.evaluations.map(({ passkey }) => passkey?.carryState),
      [false],
    );
    const { name, tbptt, evaluations, workers } = spec;
    assert.notEqual(control.name, name);
    assert.deepEqual({ ...control, name, tbptt, evaluations, workers }, spec);
  });
});
