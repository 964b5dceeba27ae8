import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NO_CURE, type CollapseVerdict, type CureSpec } from "@segue/core";
import { connectRedis, createLogger, parseLossRecord, redisKeys, startPrivateRedis, type PrivateRedis } from "@segue/runtime";
import type { EvaluationResult } from "../src/evaluation/read-evaluation.js";
import type { LossResult } from "../src/evaluation/read-loss.js";
import { lossComparison, lossRanking } from "../src/show/loss-comparison.js";
import { passkeyComparison } from "../src/show/passkey-comparison.js";
import { segue, startScriptedCoordinator, type ScriptedCoordinator } from "./support/scripted-coordinator.js";

describe("comparison of cures", () => {
  const lossOf = (cure: CureSpec, losses: (number | null)[], collapse: Partial<CollapseVerdict> = {}): LossResult => ({
    ...parseLossRecord("j_20_l", {
      ...{ jobId: "j", step: "20", status: "done", prompt: "random", prompts: "128", tokens: "4096", cure: JSON.stringify(cure) },
      ...{ bucketTokens: "512", trainTokens: "1024", collapseFactor: "2", losses: JSON.stringify(losses) },
      collapse: JSON.stringify({
        collapsed: false,
        trainLoss: 3,
        worstRatio: 1,
        worstPosition: 1024,
        firstPosition: null,
        ...collapse,
      }),
    }),
    cellsDone: 32,
  });
  const reduced: CureSpec = { kind: "reduced", retention: 0.9999, insertion: 0.75 };
  const window: CureSpec = { kind: "window", tokens: 1024, everyTokens: 128 };
  const curves = [
    lossOf(NO_CURE, [3, 2, 4, 6, 8, 9, 10, null], { collapsed: true, worstRatio: null, firstPosition: 2048 }),
    lossOf(reduced, [4, 3, 3, 3, 2, 2, 2, 2], { worstRatio: 0.75 }),
    lossOf(window, [3, 2, 3, 3, 3, 3, 3, 3.4]),
  ];
  const wordsOf = (text: string): string[][] =>
    text
      .split("\n")
      .slice(1)
      .map((line) => line.trim().split(/ {2,}/));

  it("shows the loss within and beyond the training length and the verdict, a column for each cure", () => {
    assert.deepEqual(wordsOf(lossComparison(curves)), [
      ["LOSS", "none", "reduced-0.9999-0.75", "window-1024-128"],
      ["within training length", "2.500", "3.500", "2.500"],
      ["to 2Ki (2x)", "5.000", "3.000", "3.000"],
      ["to 4Ki (4x)", "none", "2.000", "3.100"],
      ["largest / within", "-", "0.75", "1.00"],
      ["state collapse", "from 2,048", "no", "no"],
    ]);
  });

  it("ranks cures by their mean loss, says what they cost on short contexts and marks the best", () => {
    assert.deepEqual(wordsOf(lossRanking(curves)).slice(1), [
      ["*", "reduced-0.9999-0.75", "2.625", "3.500", "no"],
      ["window-1024-128", "2.925", "2.500", "no"],
      ["none", "none", "2.500", "from 2,048"],
    ]);
  });

  it("shows the mean passkey accuracy of each length, a column for each cure", () => {
    const resultOf = (cure: CureSpec, correct: number[]): EvaluationResult => ({
      ...{ evaluationId: "j_20_p", jobId: "j", step: 20, name: "p", digest: "d", status: "done", reason: "", cure },
      ...{ lengths: [1024, 4096], depths: [0, 0.5], carryState: true, accuracy: 0 },
      cells: correct.map((right, index) => ({
        ...{ length: [1024, 4096][index >> 1]!, depth: [0, 0.5][index % 2]!, correct: right, samples: 10 },
      })),
    });
    assert.deepEqual(wordsOf(passkeyComparison([resultOf(NO_CURE, [10, 9, 0, 1]), resultOf(window, [10, 8, 6])])), [
      ["LENGTH", "none", "window-1024-128"],
      ["1Ki", "95.0 %", "90.0 %"],
      ["4Ki", "5.0 %", "60.0 %"],
    ]);
  });
});

describe("segue eval with cures", () => {
  let coordinator: ScriptedCoordinator;
  let dir: string;
  let server: PrivateRedis;
  let redis: ReturnType<typeof connectRedis>;
  before(async () => {
    coordinator = await startScriptedCoordinator();
    dir = await mkdtemp(join(tmpdir(), "segue-cli-cures-"));
    server = await startPrivateRedis({ dir });
    redis = connectRedis(server.url, { logger: createLogger("test", "silent"), role: "reader" });
  });
  after(async () => {
    redis.disconnect();
    await server.close();
    await coordinator.close();
    await rm(dir, { recursive: true, force: true });
  });

  const evaluate = (...args: string[]) =>
    segue(["eval", "job-1", "--coordinator", coordinator.address, ...args], { REDIS_URL: server.url });
  /** What an evaluator leaves of a cure. */
  const found = async (id: string, cure: CureSpec, losses: number[]): Promise<void> => {
    const collapse = { collapsed: false, trainLoss: 3, worstRatio: 1, worstPosition: 1024, firstPosition: null };
    await redis.hset(redisKeys.evaluation(id), {
      ...{ jobId: "job-1", step: 20, name: "cured", status: "done", prompt: "random", prompts: 1, tokens: 2048 },
      ...{ bucketTokens: 512, trainTokens: 1024, collapseFactor: 2, cure: JSON.stringify(cure) },
      ...{ losses: JSON.stringify(losses), collapse: JSON.stringify(collapse) },
    });
  };
  const reduced = (retention: number, insertion: number): CureSpec => ({ kind: "reduced", retention, insertion });

  it("queues one evaluation for each and shows what came out side by side", async () => {
    await found("job-1_20_cured", NO_CURE, [3, 2, 4, 5]);
    await found("job-1_20_cured+reduced-0.9999-0.75", reduced(0.9999, 0.75), [3, 3, 3, 3]);
    const cures = ["--loss-by-position", "--name", "cured", "--cure", "none", "--cure", "reduced:0.9999,0.75"];
    const { exitCode, stdout } = await evaluate(...cures, "--watch");
    assert.equal(exitCode, 0);
    assert.match(
      stdout,
      /LOSS +none +reduced-0\.9999-0\.75\nwithin training length +2\.500 +3\.000\nto 2Ki \(2x\) +4\.500 +3\.000/,
    );
    const request = coordinator.evaluationRequests.at(-1);
    assert.deepEqual(
      request?.evaluation?.cures.map(({ kind, retention }) => [kind, retention]),
      [
        ["none", undefined],
        ["reduced", 0.9999],
      ],
    );
    const { evaluations } = JSON.parse((await evaluate(...cures, "--watch", "--json")).stdout) as { evaluations: LossResult[] };
    assert.deepEqual(
      evaluations.map(({ cure, losses }) => [cure.kind, losses]),
      [
        ["none", [3, 2, 4, 5]],
        ["reduced", [3, 3, 3, 3]],
      ],
    );
    const queued = JSON.parse((await evaluate(...cures, "--json")).stdout) as { evaluations: { evaluationId: string }[] };
    assert.deepEqual(
      queued.evaluations.map(({ evaluationId }) => evaluationId),
      ["job-1_20_cured", "job-1_20_cured+reduced-0.9999-0.75"],
    );
  });

  it("searches a grid of retention and insertion, the model as it is beside it", async () => {
    await found("job-1_20_grid", NO_CURE, [3, 2, 4, 5]);
    await found("job-1_20_grid+reduced-0.9999-0.5", reduced(0.9999, 0.5), [4, 3, 3, 3]);
    await found("job-1_20_grid+reduced-0.9999-1", reduced(0.9999, 1), [3, 3, 3, 3]);
    const grid = ["--name", "grid", "--tokens", "2K", "--cure-grid", "retention=0.9999", "insertion=0.5,1", "--watch"];
    const { stdout } = await evaluate(...grid);
    assert.match(
      stdout,
      /\* +reduced-0\.9999-1 +3\.000 +3\.000 +no\n +reduced-0\.9999-0\.5 +3\.250 +3\.500 +no\n +none +3\.500 +2\.500/,
    );
    const { ranking } = JSON.parse((await evaluate(...grid, "--json")).stdout) as {
      ranking: { cure: CureSpec; meanLoss: number }[];
    };
    assert.deepEqual(ranking[0], {
      cure: reduced(0.9999, 1),
      meanLoss: 3,
      trainLoss: 3,
      collapse: { collapsed: false, trainLoss: 3, worstRatio: 1, worstPosition: 1024, firstPosition: null },
    });
  });

  it("says what is wrong with a cure or a grid that is none", async () => {
    const refusal = async (...args: string[]) => {
      const { exitCode, stderr } = await evaluate(...args);
      return [exitCode, stderr] as const;
    };
    for (const [args, pattern] of [
      [["--cure", "cured"], /must be one of none, reduced/],
      [["--cure", "reduced:a"], /takes numbers for retention, insertion/],
      [["--cure-grid", "decay=1"], /must be retention=/],
    ] as const) {
      const [exitCode, stderr] = await refusal(...args);
      assert.equal(exitCode, 2);
      assert.match(stderr, pattern);
    }
  });
});
