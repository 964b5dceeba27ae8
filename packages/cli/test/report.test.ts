import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NO_CURE, packStates, validateJobSpec, type CureSpec, type StateSample } from "@segue/core";
import {
  connectRedis,
  createLogger,
  evaluationId,
  mergeAttempts,
  redisKeys,
  startPrivateRedis,
  type PrivateRedis,
} from "@segue/runtime";
import { segue } from "./support/scripted-coordinator.js";

const JOB = "job-7f3a";
const REDUCED: CureSpec = { kind: "reduced", retention: 0.9999, insertion: 0.75 };
const { spec } = validateJobSpec({
  model: { layers: 2, dModel: 64, headDim: 32, dState: 16 },
  data: { passkey: {} },
  tbptt: { segmentTokens: 256, segmentsPerChain: 4 },
  train: { steps: 800 },
});

function trace(): Uint8Array {
  const statistics = { mean: 0, variance: 1, rms: 1, median: 0, largest: 2, outlierShare: 0.125 };
  const samples = [128, 256, 512].map((tokens): StateSample => {
    const heads = Array.from({ length: 8 }, (_, index) => ({ layer: index >> 2, head: index & 3, ...statistics }));
    const inputs = heads.map((_, index) => ({ dt: 0.1, x: 2, b: 3, c: 4, retention: Math.exp((-tokens * index) / 400) }));
    return { tokens, heads, conv: [statistics, statistics], inputs };
  });
  return packStates(spec.model, samples);
}

describe("segue report", () => {
  let dir: string;
  let server: PrivateRedis;
  let redis: ReturnType<typeof connectRedis>;

  const evaluation = async (
    step: number,
    name: string,
    cure: CureSpec,
    fields: Record<string, string | number | boolean | object>,
  ): Promise<string> => {
    const id = evaluationId(JOB, step, name, cure);
    const own = { jobId: JOB, step, name, digest: "d", cure: JSON.stringify(cure), status: "done" };
    await redis.zadd(redisKeys.evaluations(JOB), step, id);
    await redis.hset(redisKeys.evaluation(id), {
      ...own,
      ...Object.fromEntries(
        Object.entries(fields).map(([key, value]) => [key, typeof value === "object" ? JSON.stringify(value) : String(value)]),
      ),
    });
    return id;
  };
  const passkeys = async (step: number, cure: CureSpec, correct: number): Promise<void> => {
    const grid = { lengths: [256, 2048], depths: [0, 1], samples: 20, digits: 5, seed: 0, template: "paper", carryState: true };
    const id = await evaluation(step, "passkey", cure, { kind: "passkey", ...grid });
    for (const cell of ["256:0", "256:1", "2048:0", "2048:1"])
      await redis.hset(redisKeys.cells(id), cell, JSON.stringify({ correct, samples: 20, ms: 5 }));
  };
  const losses = (cure: CureSpec, values: number[], collapsed: boolean): Promise<string> =>
    evaluation(800, "long", cure, {
      ...{ kind: "lossByPosition", tokens: 4096, bucketTokens: 1024, prompt: "random", prompts: 8, trainTokens: 1024 },
      ...{ collapseFactor: 2, losses: values },
      collapse: { collapsed, trainLoss: values[0], worstRatio: 3, worstPosition: 3072, firstPosition: collapsed ? 2048 : null },
    });

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "segue-report-"));
    server = await startPrivateRedis({ dir });
    redis = connectRedis(server.url, { logger: createLogger("test", "silent"), role: "worker" });
    await redis.hset(redisKeys.job(JOB), {
      ...{ name: `<img src="x">`, step: 800, totalSteps: 800, attempt: 1, parameters: 123_456, spec: JSON.stringify(spec) },
    });
    for (const step of [400, 800])
      await redis.zadd(redisKeys.checkpoints(JOB), step, JSON.stringify({ step, digest: `digest-${step}` }));
    for (let step = 1; step <= 20; step++) await redis.xadd(redisKeys.train(JOB, 1), "*", "step", step, "loss", 5 / step, "lr", 1);
    await passkeys(400, NO_CURE, 5);
    await passkeys(800, NO_CURE, 10);
    await passkeys(800, REDUCED, 15);
    await losses(NO_CURE, [2, 2, 5, 6], true);
    await losses(REDUCED, [2.2, 2.2, 2.3, 2.3], false);
    await redis.set(redisKeys.cellFile("d", "states"), Buffer.from(trace()));
    await evaluation(800, "states", NO_CURE, {
      ...{ kind: "stateStatistics", tokens: 512, everyTokens: 128, trainTokens: 256, summary: { samples: 3 } },
      fileKey: redisKeys.cellFile("d", "states"),
    });
    await evaluation(800, "remembrance", NO_CURE, {
      ...{ kind: "effectiveRemembrance", tokens: 4096, prompts: 4, starts: [64, 1024], distances: [0.1, 0.9] },
    });
  });
  after(async () => {
    redis?.disconnect();
    await server?.close();
    await rm(dir, { recursive: true, force: true });
  });

  const run = (...args: string[]) => segue(["report", ...args], { REDIS_URL: server.url });

  it("writes all that is known of the newest evaluated checkpoint, cures side by side", async () => {
    const out = join(dir, "all");
    const { exitCode, stdout, stderr } = await run(JOB, "--out", out, "--json");
    assert.equal(exitCode, 0, stdout + stderr);
    const result = JSON.parse(stdout) as { page: string; figures: number };
    const files = await readdir(join(out, "figures"));
    assert.deepEqual(files.flatMap((name) => (name.endsWith(".svg") ? [name.replace(".svg", "")] : [])).sort(), [
      ...[
        "loss-long",
        "passkey-checkpoints-passkey",
        "passkey-cures-passkey",
        "passkey-passkey",
        "passkey-passkey-reduced-0-9999-0-75",
      ],
      ...["passkey-recent-passkey", "passkey-recent-passkey-reduced-0-9999-0-75", "remembrance-remembrance", "state-sizes"],
      ...["states-conv-states", "states-heads-states", "states-inputs-states", "states-layers-states", "states-retention-states"],
      "training-loss",
    ]);
    assert.equal(files.length, 4 * result.figures);
    const loss = await readFile(join(out, "figures", "loss-long.csv"), "utf8");
    assert.match(loss, /^curve,fromToken,toToken,loss\nnone,0,1024,2\n(.*\n){3}reduced-0\.9999-0\.75,0,1024,2\.2\n/);
    const history = await readFile(join(out, "figures", "passkey-checkpoints-passkey.csv"), "utf8");
    assert.match(history, /^step 400,256,0\.25,/m);
    const page = await readFile(result.page, "utf8");
    for (const text of [
      "&lt;img src=&quot;x&quot;&gt; at step 800",
      "digest-800",
      "1,024 tokens",
      "the state collapses from position 2,048 on",
    ])
      assert.ok(page.includes(text), text);
    assert.ok(!page.includes("<img"));
  });

  it("writes an older checkpoint when asked, in place of an earlier report, and says which there are", async () => {
    const out = join(dir, "all");
    await writeFile(join(out, "figures", "own.svg"), "somebody else's");
    assert.equal((await run(JOB, "--step", "400", "--out", out)).exitCode, 0);
    const files = await readdir(join(out, "figures"));
    assert.ok(!files.includes("loss-long.svg") && files.includes("passkey-passkey.png") && files.includes("own.svg"));
    const { exitCode, stderr } = await run(JOB, "--step", "5", "--out", out);
    assert.equal(exitCode, 1);
    assert.match(stderr, /^error CHECKPOINT_NOT_FOUND: job-7f3a has no checkpoint at step 5; it has 400, 800\.$/m);
  });

  it("reports a file of state statistics alone", async () => {
    const file = join(dir, "trace.safetensors");
    await writeFile(file, trace());
    const out = join(dir, "states");
    const { exitCode, stdout } = await segue(["report", "--states", file, "--train-tokens", "256", "--out", out]);
    assert.equal(exitCode, 0);
    assert.match(stdout, /^States of trace: 5 figures\n.*report\.html\n$/);
    assert.match(await readFile(join(out, "figures", "states-retention.svg"), "utf8"), /trained to 256</);
  });

  it("refuses what it cannot report", async () => {
    const code = async (...args: string[]): Promise<string | undefined> => /^error (\w+):/.exec((await run(...args)).stderr)?.[1];
    assert.equal(await code("nobody"), "JOB_NOT_FOUND");
    assert.equal(await code(), "USAGE");
    assert.equal(await code("--states", join(dir, "missing")), "FILE_UNREADABLE");
    await writeFile(join(dir, "broken"), "no statistics");
    assert.equal(await code("--states", join(dir, "broken"), "--out", dir), "SAFETENSORS_INVALID");
    assert.match((await segue(["report", JOB])).stderr, /^error REDIS_URL_MISSING:/);
  });

  it("leaves out steps that a later attempt rolled back", () => {
    const points = (from: number, to: number, loss: number) =>
      Array.from({ length: to - from + 1 }, (_, index) => ({ step: from + index, loss }));
    assert.deepEqual(mergeAttempts([[], points(1, 5, 9), points(3, 4, 2)]), [...points(1, 2, 9), ...points(3, 4, 2)]);
  });
});
