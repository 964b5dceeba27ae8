import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { NO_CURE } from "@segue/core";
import { JobMemberSchema } from "@segue/protocol";
import { parseEvaluation, parseLossRecord } from "@segue/runtime";
import { lastLines } from "../src/cluster/last-lines.js";
import { evaluationResult } from "../src/evaluation/read-evaluation.js";
import { formatBytes, formatDuration, formatShort } from "../src/show/format.js";
import { meanAccuracy, renderHeatMap } from "../src/show/heat-map.js";
import { jobView } from "../src/show/job-view.js";
import { lossText } from "../src/show/loss-text.js";
import { passkeyText } from "../src/show/passkey-text.js";
import { progressLine, ProgressView } from "../src/show/progress.js";
import { renderTable } from "../src/show/table.js";
import { job } from "./support/scripted-coordinator.js";

describe("numbers for people", () => {
  it("keep three digits and the largest unit", () => {
    assert.deepEqual([0, 999, 999.6, 95_123, 1_234_567].map(formatShort), ["0", "999", "1K", "95.1K", "1.23M"]);
    assert.deepEqual([512, 2048, 1_048_575].map(formatBytes), ["512 B", "2 KiB", "1 MiB"]);
    assert.deepEqual([5, 200, 7500].map(formatDuration), ["5 s", "3 min 20 s", "2 h 5 min"]);
  });
});

describe("renderTable", () => {
  it("aligns columns by their widest value and numbers to the right", () => {
    const columns = [
      { title: "NAME", value: (row: [string, number]) => row[0] },
      { title: "N", value: (row: [string, number]) => String(row[1]), right: true },
    ];
    const rows: [string, number][] = [
      ["a", 5],
      ["longer", 100],
    ];
    assert.equal(renderTable(columns, rows), "NAME      N\na         5\nlonger  100");
  });
});

describe("renderHeatMap", () => {
  const map = {
    lengths: [1024, 500],
    depths: [0, 0.5],
    accuracy: (length: number, depth: number) => (length === 500 ? undefined : depth === 0 ? 1 : 0.25),
  };

  it("has a row for each depth, a column for each length and a dash for what is not known", () => {
    const lines = renderHeatMap(map, { colour: false })
      .split("\n")
      .map((line) => line.trimEnd().replace(/ +/g, " ").trim());
    assert.deepEqual(lines, ["depth 1Ki 500", "0 % 100 % -", "50 % 25 % -"]);
  });

  it("adds only colours on a terminal", () => {
    const coloured = renderHeatMap(map, { colour: true });
    assert.notEqual(coloured, renderHeatMap(map, { colour: false }));
    // eslint-disable-next-line no-control-regex
    assert.equal(coloured.replace(/\x1b\[[\d;]*m/g, ""), renderHeatMap(map, { colour: false }));
  });

  it("shows intervals beside the accuracies where they are given", () => {
    const text = renderHeatMap({ ...map, interval: () => ({ low: 0.701, high: 0.968 }) }, { colour: false });
    assert.match(text, /100 % +70-97/);
    const widths = text.split("\n").map((line) => line.trimEnd().length);
    assert.equal(widths[0], widths[1]);
  });

  it("averages what is known", () => {
    assert.equal(meanAccuracy(map), 0.625);
    assert.equal(meanAccuracy({ ...map, lengths: [500] }), undefined);
  });
});

describe("evaluationResult", () => {
  it("reads the hashes that the evaluator writes", () => {
    const fields = {
      jobId: "j",
      step: "20",
      name: "p",
      digest: "d",
      status: "running",
      lengths: "[1024]",
      depths: "[0,0.5]",
      carryState: "false",
    };
    const cells = { "1024:0.5": '{"correct":3,"samples":4,"ms":1,"answers":[]}' };
    const result = evaluationResult(parseEvaluation("j_20_p", fields, cells));
    assert.deepEqual(result.cells, [{ length: 1024, depth: 0.5, correct: 3, samples: 4 }]);
    assert.equal(result.carryState, false);
    assert.equal(result.accuracy, 0.75);
  });
});

describe("passkeyText", () => {
  it("shows the heat map with Wilson intervals and the accuracy on keys near the end", () => {
    const count = (length: number, depth: number, correct: number) => ({ length, depth, correct, samples: 20 });
    const text = passkeyText(
      {
        ...{ evaluationId: "j_20_p", jobId: "j", step: 20, name: "p", digest: "d", cure: NO_CURE, status: "done", reason: "" },
        ...{ lengths: [1024, 4096], depths: [0, 0.9], carryState: true, accuracy: 0.7 },
        cells: [count(1024, 0, 20), count(1024, 0.9, 18), count(4096, 0, 0), count(4096, 0.9, 18)],
      },
      false,
    );
    assert.match(text, /mean 70\.0 %/);
    assert.match(text, /0 % +100 % +84-100 +0 % +0-16/);
    assert.match(text, /90 % +90 % +70-97 +90 % +70-97/);
    assert.match(text, /keys in the last +1Ki +4Ki\n1Ki +95 % 83-99 +90 % 70-97/);
  });
});

describe("lossText", () => {
  const fields = {
    ...{ jobId: "j", step: "20", name: "l", digest: "d", status: "done", prompt: "random", prompts: "128" },
    ...{ bucketTokens: "512", trainTokens: "1024", collapseFactor: "2" },
  };
  const collapse = { collapsed: true, trainLoss: 3, worstRatio: 3, worstPosition: 1536, firstPosition: 1536 };

  it("draws the curve, marks the training length and says where the state collapses", () => {
    const hash = { ...fields, losses: "[3,2,2.5,9]", collapse: JSON.stringify(collapse) };
    const lines = lossText({ ...parseLossRecord("j_20_l", hash), cellsDone: 32 }).split("\n");
    assert.match(lines[0]!, /128 prompts of kind random .*1,024 tokens/);
    assert.deepEqual(
      lines.slice(2, 6).map((line) => line.replace(/ +/g, " ").trim()),
      ["0 3.000 | #############", "512 2.000 | #########", "1,024 2.500 ###########", `1,536 9.000 ${"#".repeat(40)}`],
    );
    assert.match(lines[6]!, /^state collapse from position 1,536 on: .* 2 times the largest .* 3\.000$/);
  });

  it("puts neighbouring buckets together by their largest loss, and keeps what is no number", () => {
    const losses = JSON.stringify(Array.from({ length: 100 }, (_, bucket) => (bucket === 99 ? null : bucket === 7 ? 5 : 1)));
    const verdict = { ...collapse, collapsed: false, worstRatio: 1.25, firstPosition: null };
    const text = lossText({
      ...parseLossRecord("j_20_l", { ...fields, losses, collapse: JSON.stringify(verdict) }),
      cellsDone: 32,
    });
    assert.equal(text.split("\n").length, 3 + 20);
    assert.match(text, /2,560 +5\.000/);
    assert.match(text, /none *\n/);
    assert.match(text, /no state collapse: .* is 1\.25 times/);
  });
});

describe("ProgressView", () => {
  const shown = (isTerminal: boolean, play: (view: ProgressView) => void): string => {
    let text = "";
    play(new ProgressView({ isTerminal, columns: 200, write: (part) => (text += part) }));
    return text;
  };

  it("draws one line again and again on a terminal, news above it", () => {
    const text = shown(true, (view) => {
      view.update(jobView(job({ step: 10, etaSeconds: 90 })));
      view.update(jobView(job({ step: 20, etaSeconds: 80 })));
      view.update(jobView(job({ step: 20, checkpointStep: 20, checkpointDigest: "c".repeat(64) })));
      view.end();
    });
    const lines = text.split("\n").map((line) => line.split("\r").at(-1)?.replace("\x1b[2K", ""));
    assert.deepEqual(lines.slice(0, 3), [
      "job-1 running on 2 workers",
      "gpu-1-abcdef is slow: 12.3 ms a shard and step",
      "checkpoint at step 20, digest cccccccccccccccc",
    ]);
    assert.match(text, /\[##\.{18}\] 10 % {2}step 10\/100 {2}loss 2\.5000 {2}12\.3K tokens\/s {2}ETA 1 min 30 s/);
    assert.ok(text.endsWith("\n"));
  });

  it("says how much of the time several workers wait for each other", () => {
    const member = (workerId: string, exchangeMs: number) =>
      create(JobMemberSchema, { workerId, shards: 1, stepTimes: { computeMs: 20, exchangeMs, restMs: 0 } });
    const line = (...members: ReturnType<typeof member>[]): string => progressLine(jobView(job({ members })));
    assert.match(line(member("a", 10), member("b", 30)), /tokens\/s {2}exchange 50 %$/);
    assert.doesNotMatch(line(member("a", 0)), /exchange/);
  });

  it("prints plain lines now and then elsewhere", () => {
    const text = shown(false, (view) => {
      for (let step = 1; step <= 99; step++) view.update(jobView(job({ step })), 100 * step);
      view.update(jobView(job({ step: 100 })), 9_950);
    });
    assert.equal(text.includes("\r"), false);
    assert.deepEqual(
      [...text.matchAll(/step (\d+)\//g)].map(([, step]) => step),
      ["1", "51", "100"],
    );
  });
});

describe("lastLines", () => {
  it("turns pino's lines into sentences and keeps others", () => {
    const log = '{"level":30,"msg":"old"}\nplain words\n{"level":60,"msg":"out of luck","reason":"no port"}\n';
    assert.equal(lastLines(log, 2), "  plain words\n  fatal: out of luck (no port)");
  });
});
