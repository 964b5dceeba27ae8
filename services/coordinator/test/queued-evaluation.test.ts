import assert from "node:assert/strict";
import { validateJobSpec } from "@segue/core";
import { queuedEvaluation } from "../src/evaluations/queued-evaluation.js";

const evaluationOf = (evaluation: object) => {
  const { spec } = validateJobSpec({
    model: { layers: 1, dModel: 64 },
    data: { passkey: {} },
    train: { steps: 10 },
    evaluations: [evaluation],
  });
  return spec.evaluations[0]!;
};

describe("queuedEvaluation", () => {
  it("makes a cell of each length and depth", () => {
    const evaluation = evaluationOf({ passkey: { lengths: [512, 1024], depths: [0, 0.5], samples: 3 } });
    const { fields, parent, cells } = queuedEvaluation(evaluation);
    assert.deepEqual([fields["kind"], fields["lengths"], fields["carryState"]], ["passkey", "[512,1024]", "true"]);
    assert.deepEqual(parent, {});
    assert.deepEqual(
      cells.map(({ part }) => part),
      ["len-512_depth-0", "len-512_depth-0.5", "len-1024_depth-0", "len-1024_depth-0.5"],
    );
  });

  it("makes a cell of every four prompts, and tells what closing takes", () => {
    const evaluation = evaluationOf({ lossByPosition: { prompt: "random", prompts: 10, tokens: 65_536, bucketTokens: 256 } });
    const { fields, parent, cells } = queuedEvaluation(evaluation);
    assert.deepEqual([fields["kind"], fields["prompts"], fields["trainTokens"]], ["lossByPosition", 10, 24_576]);
    assert.deepEqual(parent, { task: "lossByPosition", bucketTokens: 256, trainTokens: 24_576, collapseFactor: 2 });
    assert.deepEqual(
      cells.map(({ part }) => part),
      ["prompts-0-4", "prompts-4-4", "prompts-8-2"],
    );
    assert.deepEqual(cells[2]!.work, {
      ...{ task: "lossByPosition", firstPrompt: 8, prompts: 2 },
      ...{ tokens: 65_536, bucketTokens: 256, prompt: "random", seed: 0 },
    });
  });
});
