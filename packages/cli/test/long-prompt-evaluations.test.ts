import assert from "node:assert/strict";
import { NO_CURE, type StateSummary } from "@segue/core";
import { parseRemembranceRecord, parseStatesRecord } from "@segue/runtime";
import { evaluationName } from "../src/evaluation/evaluation-name.js";
import { lossByPositionKind } from "../src/evaluation/loss-by-position-kind.js";
import { remembranceKind } from "../src/evaluation/remembrance-kind.js";
import { statesKind } from "../src/evaluation/states-kind.js";

const summary: StateSummary = {
  samples: 4,
  growth: [
    { layer: 1, head: 2, within: 0.5, beyond: 4, ratio: 8 },
    { layer: 0, head: 0, within: 1, beyond: 1, ratio: 1 },
  ],
  retention: [{ layer: 0, head: 3, share: 0.9971 }],
  outliers: [{ layer: 1, head: 2, share: 0.84 }],
};
const shared = { jobId: "j", step: "20", name: "s", digest: "d", status: "done", tokens: "32768", prompt: "newlines", seed: "0" };
const states = (more: Record<string, string> = {}) => ({
  ...parseStatesRecord("j_20_s", {
    ...{ ...shared, everyTokens: "128", histogramTokens: "[8192]", trainTokens: "2048" },
    ...{ summary: JSON.stringify(summary), fileKey: "segue:file:x", ...more },
  }),
  cellsDone: 1,
});
const remembrance = (distances: string, cure = NO_CURE as object) => ({
  ...parseRemembranceRecord("j_20_r", { ...shared, prompts: "8", starts: "[512,8000]", distances, cure: JSON.stringify(cure) }),
  cellsDone: 2,
});
const rows = (text: string): string[] => text.split("\n").map((line) => line.trim().replace(/ +/g, " "));

describe("segue eval --states and --remembrance", () => {
  it("ask for what is given, and leave the rest to the coordinator", () => {
    assert.deepEqual(statesKind.evaluation({ seed: 3, tokens: 1024 }, []).stateStatistics, { tokens: 1024, seed: 3 });
    const settings = { seed: 3, every: 64, histograms: [10], prompt: "corpus", trainTokens: 9 };
    assert.deepEqual(statesKind.evaluation(settings, []).stateStatistics, {
      ...{ everyTokens: 64, histogramTokens: [10], prompt: "corpus", trainTokens: 9, seed: 3 },
    });
    const { name, effectiveRemembrance } = remembranceKind.evaluation({ seed: 0, starts: [1, 2], prompts: 4 }, []);
    assert.deepEqual(effectiveRemembrance, { starts: [1, 2], prompts: 4, seed: 0 });
    assert.match(name!, /^remembrance-[0-9a-f]{8}$/);
    assert.equal(remembranceKind.evaluation({ seed: 0, name: "own" }, []).name, "own");
  });

  it("leave the names of evaluations of loss as they were", () => {
    const before = { tokens: 2 ** 20, prompt: "newlines", prompts: 1, seed: 0, collapseFactor: 2 };
    assert.deepEqual(lossByPositionKind.evaluation({ seed: 0, collapseFactor: 2 }, []).lossByPosition, before);
    assert.equal(
      lossByPositionKind.evaluation({ seed: 0, collapseFactor: 2 }, []).name,
      evaluationName("loss-by-position", before),
    );
  });

  it("name the heads that stand out", () => {
    const text = rows(statesKind.text(states(), false));
    assert.match(text[0]!, /of step 20 on 32,768 tokens of newlines \(training length 2,048 tokens\)/);
    for (const row of ["1.2 5.00e-1 4.00e+0 8.00", "0.3 0.9971", "1.2 0.8400"]) assert.ok(text.includes(row), row);
    assert.match(statesKind.text(states({ summary: "" }), false), /none yet/);
    // What JSON could not hold was no finite number.
    const collapsed = JSON.stringify({ ...summary, growth: [{ ...summary.growth[0]!, beyond: Infinity, ratio: Infinity }] });
    assert.ok(rows(statesKind.text(states({ summary: collapsed }), false)).includes("1.2 5.00e-1 Infinity Infinity"));
  });

  it("show cures side by side", () => {
    const cured = states({ cure: '{"kind":"reduced","retention":0.9999,"insertion":0.75}' });
    assert.ok(rows(statesKind.comparison([states(), cured])).includes("reduced-0.9999-0.75 8.00 0.9971 0.8400"));
    const both = [remembrance("[0.9,0.0125]"), remembrance("[0.5,null]", { kind: "window", tokens: 640, everyTokens: 64 })];
    assert.deepEqual(rows(remembranceKind.comparison(both)).slice(1), [
      "LEFT OUT DISTANCE window-640-64",
      "512 0.9000 0.5000",
      "8,000 0.0125 none",
    ]);
    assert.match(remembranceKind.text(remembrance("[0.9,0.1]"), false), /over 8 prompts/);
  });
});
