import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EXIT, runCli } from "@segue/cli";

const STUDY = `
name: tiny
base:
  model: { layers: 1, dModel: 32, headDim: 16, dState: 8, chunk: 32, vocab: 256 }
  data: { passkey: { documentTokens: 320, digits: 2, minAskProbability: 0.1 } }
  tbptt: { segmentTokens: 64, segmentsPerChain: 0 }
  batch: { shards: 1, lanesPerShard: 2 }
  train: { steps: 10, engine: cpu }
  checkpoints: { everySteps: 5 }
  workers: { min: 1, max: 1 }
  evaluations:
    - name: filler
      cures: [{ kind: none }, { kind: longMamba }]
      lossByPosition: { tokens: 1024, bucketTokens: 64, prompt: passkey, prompts: 1, trainTokens: 320 }
    - name: keys
      passkey: { lengths: [320, 640], depths: [0.5], samples: 2, digits: 2 }
jobs:
  - name: state
    grid: { model.dState: [4, 8] }
analyses:
  - { name: collapse, kind: collapse }
  - { name: cures, kind: cures }
  - { name: more-data, kind: moreData }
`;

interface Results {
  readonly jobs: readonly { readonly jobId: string; readonly phase: string; readonly evaluations: readonly unknown[] }[];
  readonly analyses: readonly { readonly rows: readonly unknown[] }[];
}

describe("segue study", () => {
  it("trains, evaluates and concludes on a cluster of its own; called again it finds everything done", async () => {
    const dir = await mkdtemp(join(tmpdir(), "segue-study-"));
    try {
      await writeFile(join(dir, "study.yaml"), STUDY);
      const run = async (): Promise<Results> => {
        let errors = "";
        const stdout = { write: () => true };
        const stderr = { write: (text: string) => (errors += text) };
        const runtime = { stdout, stderr, env: { PATH: process.env["PATH"] }, signal: new AbortController().signal };
        const code = await runCli(["study", join(dir, "study.yaml"), "--local", "--out", join(dir, "out"), "--json"], runtime);
        assert.equal(code, EXIT.ok, errors);
        return JSON.parse(await readFile(join(dir, "out", "results.json"), "utf8")) as Results;
      };
      const first = await run();
      assert.deepEqual(
        first.jobs.map(({ phase, evaluations }) => [phase, evaluations.length]),
        // Two checkpoints, each with two cures of one evaluation and one of the other.
        [
          ["SUCCEEDED", 6],
          ["SUCCEEDED", 6],
        ],
      );
      assert.deepEqual(
        first.analyses.map(({ rows }) => rows.length),
        [2, 4, 8],
      );
      assert.match(await readFile(join(dir, "out", "report", "report.html"), "utf8"), /Study tiny/);
      const second = await run();
      assert.deepEqual(
        second.jobs.map(({ jobId }) => jobId),
        first.jobs.map(({ jobId }) => jobId),
      );
      assert.deepEqual(second.analyses, first.analyses);
    } finally {
      await rm(dir, { recursive: true, force: true, maxRetries: 5 });
    }
  });
});
