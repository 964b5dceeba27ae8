import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { JobMemory } from "@segue/engine";
import { runCli } from "../src/program.js";

const SPEC = `
model: { layers: 4, dModel: 512, dState: 64, headDim: 64, chunk: 64 }
data: { passkey: {} }
tbptt: { segmentTokens: 256 }
batch: { shards: 4, lanesPerShard: 4 }
train: { steps: 10 }
`;

describe("segue memory", () => {
  let dir: string;
  let file: string;

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "segue-memory-test-"));
    file = join(dir, "job.yaml");
    await writeFile(file, SPEC);
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  async function run(...args: string[]): Promise<{ exitCode: number; stdout: string; stderr: string }> {
    let stdout = "";
    let stderr = "";
    const exitCode = await runCli(["memory", ...args], {
      stdout: { write: (text: string) => void (stdout += text) },
      stderr: { write: (text: string) => void (stderr += text) },
      env: {},
      signal: new AbortController().signal,
    });
    return { exitCode, stdout, stderr };
  }

  type Answer = JobMemory & { readonly largestLanesPerShard: number };
  const json = async (...args: string[]): Promise<Answer> => {
    const { exitCode, stdout, stderr } = await run(file, "--json", ...args);
    assert.equal(exitCode, 0, stdout + stderr);
    return JSON.parse(stdout) as Answer;
  };

  it("shows parts that make up each total, without a coordinator", async () => {
    const { exitCode, stdout } = await run(file);
    assert.equal(exitCode, 0);
    assert.match(stdout, /^6,747,328 parameters, 1 worker, engine cpu with 1 thread\n/);
    assert.match(stdout, /\nEach worker at its peak: \d+ MiB\n/);
    assert.match(stdout, /\nAdamW moments +51\.5 MiB +\d+\.\d % +2 x parameters\n/);
    const { worker, coordinator } = await json();
    for (const { parts, hostBytes } of [worker, coordinator]) {
      assert.equal(
        parts.reduce((sum, { bytes }) => sum + bytes, 0),
        hostBytes,
      );
    }
  });

  it("says how many lanes fit, and no more do", async () => {
    const limit = 2 * 2 ** 30;
    const { largestLanesPerShard } = await json("--limit", "2GiB");
    const bytesWith = async (lanes: number): Promise<number> => {
      await writeFile(file, SPEC.replace("lanesPerShard: 4", `lanesPerShard: ${lanes}`));
      return (await json()).worker.hostBytes;
    };
    assert.ok((await bytesWith(largestLanesPerShard)) <= limit);
    assert.ok((await bytesWith(largestLanesPerShard + 1)) > limit);
    assert.match((await run(file, "--limit", "100MiB")).stdout, /Not even one lane a shard fits into 100 MiB/);
  });

  it("does not pretend to know what it cannot predict", async () => {
    assert.match((await run(file, "--engine", "tfjs")).stdout, /a lower bound: TensorFlow\.js keeps every intermediate result/);
    const { worker, caveat } = await json("--engine", "cuda");
    assert.ok(worker.deviceBytes > 0);
    assert.match(caveat, /^a lower bound/);
    assert.equal((await json("--engine", "cpu")).caveat, "");
  });

  it("refuses more workers than the job can use, and bytes that are none", async () => {
    const { exitCode, stderr } = await run(file, "--workers", "5");
    assert.equal(exitCode, 2);
    assert.match(stderr, /^error USAGE: This job can use 1 to 4 workers, not 5/);
    assert.match((await run(file, "--limit", "lots")).stderr, /such as 8GiB/);
  });
});
