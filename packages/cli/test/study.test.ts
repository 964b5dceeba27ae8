import assert from "node:assert/strict";
import { CAPACITY_POINTS, SegueError, type LossCurve } from "@segue/core";
import { forgetAnalysis } from "../src/study/analyses/forget.js";
import { recallAnalysis } from "../src/study/analyses/recall.js";
import { planStudy } from "../src/study/plan.js";
import type { JobResult, StudyEvaluation } from "../src/study/results.js";
import { parseStudy } from "../src/study/study-spec.js";

const TEXT = `
name: small
base:
  model: { layers: 1, dModel: 32, headDim: 16, dState: 8, vocab: 256, chunk: 32 }
  data: { passkey: { documentTokens: 512 } }
  tbptt: { segmentTokens: 512 }
  train: { steps: 10 }
jobs:
  - name: ladder
    grid:
      model.dState: [4, 8]
      "data.passkey.documentTokens, tbptt.segmentTokens": [512, 1024]
analyses:
  - { name: forgetting, kind: forget }
`;

function refusal(text: string): SegueError {
  try {
    planStudy(parseStudy(text));
  } catch (error) {
    if (error instanceof SegueError) return error;
    throw error;
  }
  return assert.fail("it was not refused");
}

describe("planStudy", () => {
  it("has a job for every combination, paths that share an axis changing together, with stable keys", () => {
    const jobs = planStudy(parseStudy(TEXT));
    assert.deepEqual(
      jobs.map(({ name, spec }) => [name, spec.model.dState, spec.data.passkey?.documentTokens, spec.tbptt.segmentTokens]),
      [
        ["small-ladder-4-512", 4, 512, 512],
        ["small-ladder-4-1024", 4, 1024, 1024],
        ["small-ladder-8-512", 8, 512, 512],
        ["small-ladder-8-1024", 8, 1024, 1024],
      ],
    );
    const keys = jobs.map(({ idempotencyKey }) => idempotencyKey);
    assert.equal(new Set(keys).size, 4);
    assert.deepEqual(
      planStudy(parseStudy(TEXT)).map(({ idempotencyKey }) => idempotencyKey),
      keys,
    );
  });

  it("refuses unknown settings with the nearest name, in the study and in its jobs", () => {
    assert.match(refusal(TEXT.replace("analyses:", "analysis:")).message, /did you mean analyses\?/);
    assert.match(refusal(TEXT.replace("model.dState:", "model.dstat:")).message, /\(small-ladder-4-512\): model.dstat: .*dState\?/);
    assert.equal(refusal(TEXT.replace("kind: forget", "kind: forgot")).code, "STUDY_INVALID");
    assert.match(
      refusal(TEXT.replace("kind: forget", "kind: forget, jobs: [lader]")).message,
      /names "lader"; the study has ladder/,
    );
  });
});

/** A job of which only what analyses read is known. */
function job(stateFloats: number, trainTokens: number, evaluation: StudyEvaluation["result"] | object): JobResult {
  const result = { step: 10, cure: { kind: "none" }, name: "e", ...evaluation };
  const kind = "cells" in result ? "passkey" : "lossByPosition";
  return {
    ...{ name: `${stateFloats}-${trainTokens}`, grid: "g", phase: "SUCCEEDED", step: 10, stateFloats, trainTokens },
    evaluations: [{ kind, tokens: 0, result }],
  } as unknown as JobResult;
}

describe("forgetAnalysis", () => {
  it("finds the published line in models that forget from the published lengths on", () => {
    const jobs = CAPACITY_POINTS.forget.slice(1).flatMap(({ x, y }) =>
      [y / 2, y].map((lengthK) => {
        const curve: LossCurve & object = { bucketTokens: 1, losses: [] };
        const collapse = { collapsed: lengthK < y, worstRatio: lengthK < y ? 3 : 1, trainLoss: 1 };
        return job(x * 1e6, lengthK * 1024, { ...curve, trainTokens: lengthK * 1024, collapse });
      }),
    );
    const { sizes, fit } = forgetAnalysis(jobs);
    assert.ok(sizes.every(({ isUpperBound, ladder }) => !isUpperBound && ladder.length === 2));
    assert.ok(fit && Math.abs(fit.slope - 5.16) < 0.3 && fit.rSquared > 0.98, JSON.stringify(fit));
  });
});

describe("recallAnalysis", () => {
  it("takes the length up to which every one passes, of the best job of each size, and finds the published base", () => {
    const jobs = CAPACITY_POINTS.recall.flatMap(({ x, y }) =>
      [y, y / 2].map((best, index) => {
        const lengths = [0.25, 0.5, 1, 2].map((factor) => Math.max(1, factor * best * 1024));
        const cells = lengths.map((length) => ({ length, depth: 0.5, correct: length <= best * 1024 ? 10 : 0, samples: 10 }));
        return job(x * 1e6, 512 + index, { cells });
      }),
    );
    const { sizes, fit } = recallAnalysis(jobs, 0.95);
    assert.deepEqual(
      sizes.slice(1).map(({ recallTokens }) => recallTokens / 1024),
      [1, 2, 4, 16, 256],
    );
    assert.ok(fit && Math.abs(fit.base - 1.364) < 0.005, JSON.stringify(fit));
  });

  it("stops at the first length that fails, though a longer one passes", () => {
    const cells = [1, 2, 3].map((length) => ({ length, depth: 0, correct: length === 2 ? 0 : 1, samples: 1 }));
    assert.equal(recallAnalysis([job(1, 1, { cells })], 0.95).sizes[0]?.recallTokens, 1);
  });
});
