import assert from "node:assert/strict";
import { NO_CURE } from "@segue/core";
import { farAccuracy } from "../src/demo/accuracy.js";
import { evaluationLine, resultText, type DemoJob, type DemoResult } from "../src/demo/report.js";
import type { EvaluationResult } from "../src/evaluation/read-evaluation.js";

const LENGTHS = [512, 1024];
const DEPTHS = [0, 0.5, 0.9];

/** Right answers of four where the key is near and where it is a segment of 256 or more away. */
function evaluation(name: string, carryState: boolean, correct: { near: number; far: number }): EvaluationResult {
  const cells = LENGTHS.flatMap((length) =>
    DEPTHS.map((depth) => ({ length, depth, correct: depth === 0.9 ? correct.near : correct.far, samples: 4 })),
  );
  const accuracy = (4 * correct.far + 2 * correct.near) / 24;
  return {
    ...{ evaluationId: `j_100_${name}`, jobId: "j", step: 100, name, digest: "d", cure: NO_CURE, status: "complete", reason: "" },
    ...{ lengths: LENGTHS, depths: DEPTHS, carryState, cells, accuracy },
  };
}

function demoJob(workers: number, asTrained: EvaluationResult, otherwise: EvaluationResult | undefined): DemoJob {
  return {
    ...{ jobId: "j", workers, steps: 100, tokens: 204_800, tokensPerSecond: 50_000, firstLoss: 5.5, lastLoss: 0.25 },
    ...{ evaluations: [asTrained], otherwise },
  };
}

describe("farAccuracy", () => {
  it("counts the cells whose key is told a whole segment before the question, and no others", () => {
    const result = evaluation("passkey", true, { near: 4, far: 1 });
    const byLength = LENGTHS.map((length) => ({ length, accuracy: 0.25 }));
    assert.deepEqual(farAccuracy(result, 256), { mean: 0.25, byLength });
    // At 1,024 and depth 0.9 the key is 102 bytes away: further than a segment of 100.
    assert.equal(farAccuracy(result, 100).byLength[1]?.accuracy, 0.5);
  });

  it("is null where no such cell is known", () => {
    assert.deepEqual(farAccuracy({ lengths: [512], cells: [] }, 256), { mean: null, byLength: [{ length: 512, accuracy: null }] });
  });
});

describe("the demo's report", () => {
  const carried = demoJob(2, evaluation("passkey", true, { near: 4, far: 4 }), evaluation("z", false, { near: 4, far: 0 }));
  const control = demoJob(1, evaluation("passkey", false, { near: 4, far: 0 }), evaluation("c", true, { near: 4, far: 2 }));
  const result: DemoResult = {
    ...{ engine: "cpu", parameters: 85_000, recipeSteps: 100, segmentTokens: 256, carried, control },
    ...{ seconds: 200, deviation: "" },
  };
  const rows = (text: string): string[] => text.split("\n").map((line) => line.trim().replace(/ {2,}/g, " | "));

  it("puts the job and its control side by side, both asked as they were trained and the other way", () => {
    const lines = rows(resultText(result, false));
    for (const expected of [
      "trained and asked with the state carried | 100.0 % | 100.0 % | 100.0 %",
      "the same model, its state zeroed at every boundary | 0.0 % | 0.0 % | 0.0 %",
      "control: trained and asked without the state | 0.0 % | 0.0 % | 0.0 %",
      "the control's model, given a carried state after all | 50.0 % | 50.0 % | 50.0 %",
    ]) {
      assert.ok(lines.includes(expected), `${expected}\nis missing in\n${lines.join("\n")}`);
    }
  });

  it("leaves out what was not evaluated in time", () => {
    const text = resultText({ ...result, control: { ...control, evaluations: [], otherwise: undefined } }, false);
    assert.match(text, /trained and asked with the state carried/);
    assert.doesNotMatch(text, /given a carried state/);
    assert.match(text, /control, the same job/);
  });

  it("says during training what only a carried state explains", () => {
    const line = evaluationLine(evaluation("passkey", true, { near: 4, far: 2 }), 256);
    assert.equal(line, "j: passkey accuracy of step 100 66.7 % over 6 cells, 50.0 % where the key is a segment away");
  });
});
