import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parameterLayout, validateJobSpec } from "@segue/core";
import { readModelFolder } from "@segue/engine";
import { Scratch, runSegue, segueJson, tinySpec } from "./helpers/clusters.js";
import { checkpointsOf, jobOf, submitSpec, waitForSuccess } from "./helpers/jobs.js";
import { until } from "./helpers/patience.js";

const EVALUATION = `
evaluations:
  - name: passkey
    everyCheckpoints: 1
    passkey: { lengths: [256, 512], depths: [0, 0.5, 1], samples: 2, digits: 2 }
`;

describe("a cluster of real processes", () => {
  const scratch = new Scratch();
  after(() => scratch.close());

  it("trains, evaluates from the queue, exports, and shows all of it", async () => {
    const cluster = await scratch.cluster({ workers: 2, evaluators: 1, dashboard: true, threads: 1 });
    const spec = tinySpec({ steps: 60, everySteps: 30, minWorkers: 2 }) + EVALUATION;
    const jobId = await submitSpec(scratch, cluster, spec);
    const job = await waitForSuccess(cluster, jobId);
    assert.equal(job.phase, "SUCCEEDED");
    assert.equal(job.step, 60);
    assert.equal(job.tokens, 60 * 4 * 2 * 32);
    assert.ok(job.loss > 0 && job.loss < Math.log(256), `the loss fell below chance: ${job.loss}`);

    const checkpoints = await checkpointsOf(cluster, jobId);
    assert.deepEqual(
      checkpoints.map(({ step }) => step),
      [60, 30],
    );

    const folder = join(scratch.folder(), "model");
    await segueJson(cluster, "export", jobId, folder);
    const { model, parameters } = await readModelFolder(folder);
    assert.equal(model.dModel, 16);
    assert.equal(
      parameters.length,
      parameterLayout(validateJobSpec(((await jobOf(cluster, jobId)) as unknown as { spec: unknown }).spec).spec.model).size,
    );
    assert.ok(parameters.pages.every((page) => page.every(Number.isFinite)));
    // What was exported is what the coordinator keeps on disk.
    const kept = join(cluster.storeDir, "jobs", jobId, "checkpoints", "step-00000060");
    const sha256 = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");
    assert.equal(sha256(join(folder, "model.safetensors")), sha256(join(kept, "model.safetensors")));

    // Both checkpoints were evaluated without anybody asking, cell by cell.
    const evaluations = await waitForEvaluations(cluster.dashboard!, jobId, 2);
    for (const evaluation of evaluations) {
      assert.equal(evaluation.cells.length, 6);
      for (const cell of evaluation.cells) assert.ok(cell.samples === 2 && cell.correct >= 0 && cell.correct <= 2);
    }

    const series = (await (await fetch(new URL(`api/jobs/${jobId}/series`, cluster.dashboard))).json()) as { step: number[] };
    assert.ok(JSON.stringify(series).includes("60"), "the dashboard has the loss of every step");
    const page = await (await fetch(new URL("/", cluster.dashboard))).text();
    assert.match(page, /<title>.*Segue/i);
  });

  it("tells a person what is wrong, with an exit code", async () => {
    const cluster = await scratch.cluster({ workers: 1, threads: 1 });
    const unknown = await runSegue(cluster, "job", "no-such-job");
    assert.equal(unknown.status, 1);
    assert.match(unknown.stderr, /error JOB_NOT_FOUND: /);
    await assert.rejects(
      submitSpec(scratch, cluster, tinySpec().replace("segmentTokens", "segmentTokns")),
      /segmentTokns[^]*segmentTokens/,
    );
    const nowhere = await runSegue("127.0.0.1:1", "jobs");
    assert.equal(nowhere.status, 3);
  });
});

interface Evaluation {
  readonly status: string;
  readonly cells: readonly { length: number; depth: number; correct: number; samples: number }[];
}

async function waitForEvaluations(dashboard: string, jobId: string, count: number): Promise<Evaluation[]> {
  let body: { evaluations?: Evaluation[] } | Evaluation[] = [];
  const done = async (): Promise<Evaluation[] | false> => {
    const response = await fetch(new URL(`api/evaluations/${jobId}`, dashboard));
    body = (await response.json()) as typeof body;
    const evaluations = Array.isArray(body) ? body : (body.evaluations ?? []);
    return evaluations.length >= count && evaluations.every(({ status }) => status === "done") && evaluations;
  };
  return until(done, () => `evaluations; there are ${JSON.stringify(body)}`, 250);
}
