import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { NO_CURE, validateJobSpec } from "@segue/core";
import { connectRedis, createLogger, queueNames, redisKeys, startPrivateRedis, type PrivateRedis } from "@segue/runtime";
import { Queue, UnrecoverableError, Worker } from "bullmq";
import { until } from "../../../test/helpers/patience.js";
import { EvaluationQueue } from "../src/evaluations/evaluation-queue.js";

const logger = createLogger("test", "silent");
const LOSS = validateJobSpec({
  model: { layers: 1, dModel: 64 },
  data: { passkey: {} },
  train: { steps: 10 },
  evaluations: [{ name: "again", lossByPosition: { tokens: 8192 } }],
}).spec.evaluations[0]!.lossByPosition!;
const [evaluation] = validateJobSpec({
  model: { layers: 1, dModel: 64 },
  data: { passkey: {} },
  train: { steps: 10 },
  evaluations: [{ name: "again", passkey: { lengths: [512, 1024], depths: [0, 1], samples: 2 } }],
}).spec.evaluations;

describe("evaluation queue", () => {
  let folder: string;
  let server: PrivateRedis;
  let producer: ReturnType<typeof connectRedis>;
  let consumer: ReturnType<typeof connectRedis>;
  let queue: EvaluationQueue;
  const workers: Worker[] = [];

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "segue-evaluations-"));
    server = await startPrivateRedis({ dir: folder });
    producer = connectRedis(server.url, { logger, role: "producer" });
    consumer = connectRedis(server.url, { logger, role: "worker" });
    await once(producer, "ready");
    queue = new EvaluationQueue(producer, logger);
  });
  after(async () => {
    await Promise.all(workers.map((worker) => worker.close(true)));
    await queue.close();
    producer.disconnect();
    consumer.disconnect();
    await server.close();
    await rm(folder, { recursive: true });
  });

  it("tries an evaluation that failed again when it is asked for again, but not its complete cells", async () => {
    let isBroken = true;
    const computed: string[] = [];
    const done: string[] = [];
    const failed: string[] = [];
    const cells = new Worker<{ length: number; depth: number }>(
      queueNames.cells,
      async ({ data: { length, depth } }) => {
        if (isBroken && length === 1024 && depth === 1) throw new UnrecoverableError("broken");
        computed.push(`${length}:${depth}`);
      },
      { connection: consumer },
    );
    // A parent whose child failed fails when somebody takes it, as evaluators do.
    const heatmaps = new Worker(queueNames.heatmaps, async ({ id = "" }) => void done.push(id), { connection: consumer });
    heatmaps.on("failed", (job) => failed.push(job?.id ?? ""));
    workers.push(cells, heatmaps);

    assert.ok(evaluation);
    const request = { jobId: "j", step: 10, digest: "d".repeat(64), evaluation };
    const [submitted] = await queue.submit(request, true);
    const { evaluationId } = submitted!;
    await until(() => failed.length === 1 && computed.length === 3, "the failed heat map");
    const key = redisKeys.evaluation(evaluationId);
    // The evaluator writes this.
    await producer.hset(key, { status: "failed", reason: "broken" });

    isBroken = false;
    await queue.submit(request, false);
    assert.equal(await producer.hget(key, "status"), "failed", "training itself does not try again what has failed");
    assert.deepEqual(await queue.submit(request, true), [{ evaluationId, cells: 4 }]);
    const { status, reason } = await producer.hgetall(key);
    assert.deepEqual({ status, reason }, { status: "queued", reason: undefined });
    await until(() => done.length === 1, "the complete heat map");
    assert.deepEqual(computed.sort(), ["1024:0", "1024:1", "512:0", "512:1"]);

    await queue.submit(request, true);
    await sleep(300);
    assert.equal(computed.length, 4, "one that is complete is not computed again");
  });

  it("queues an evaluation once for each cure, and leaves the ids and the work of none as they were", async () => {
    assert.ok(evaluation);
    const reduced = { kind: "reduced", retention: 0.999, insertion: 0.5 } as const;
    const request = { jobId: "k", step: 10, digest: "d".repeat(64), evaluation: { ...evaluation, cures: [NO_CURE, reduced] } };
    const submitted = await queue.submit(request, true);
    assert.deepEqual(submitted, [
      { evaluationId: "k_10_again", cells: 4 },
      { evaluationId: "k_10_again+reduced-0.999-0.5", cells: 4 },
    ]);
    const cells = new Queue<object>(queueNames.cells, { connection: producer });
    const workOf = async (id: string) => (await cells.getJob(`${id}_len-512_depth-0`))?.data ?? {};
    const [plain, cured] = [await workOf("k_10_again"), await workOf("k_10_again+reduced-0.999-0.5")];
    await cells.close();
    assert.equal("cure" in plain, false);
    assert.deepEqual(cured, { ...plain, evaluationId: "k_10_again+reduced-0.999-0.5", cure: reduced });
    const { cure, name } = await producer.hgetall(redisKeys.evaluation("k_10_again+reduced-0.999-0.5"));
    assert.deepEqual([JSON.parse(cure ?? ""), name], [reduced, "again"]);
  });

  it("refuses a name that stands for other settings, and changes nothing", async () => {
    assert.ok(evaluation?.passkey);
    const request = { jobId: "l", step: 10, digest: "d".repeat(64), evaluation };
    await queue.submit(request, true);
    const key = redisKeys.evaluation("l_10_again");
    const before = await producer.hgetall(key);
    const cells = new Queue(queueNames.cells, { connection: producer });
    const known = await cells.getJobCountByTypes();
    const other = { ...evaluation, passkey: { ...evaluation.passkey, depths: [0.9], samples: 50 } };
    await assert.rejects(queue.submit({ ...request, evaluation: other }, true), {
      code: "EVALUATION_NAME_TAKEN",
      status: "ALREADY_EXISTS",
      message: /named again .*depths is \[0,1\], asked for is \[0.9\]; samples is 2, asked for is 50/,
    });
    const loss = { name: "again", everyCheckpoints: 1, cures: [NO_CURE], lossByPosition: LOSS };
    await assert.rejects(queue.submit({ ...request, evaluation: loss }, true), { code: "EVALUATION_NAME_TAKEN" });
    assert.deepEqual(await producer.hgetall(key), before);
    assert.equal(await cells.getJobCountByTypes(), known);
    await cells.close();
    // Written before there were kinds and early stops.
    await producer.hdel(key, "kind", "stopWidth");
    assert.deepEqual(await queue.submit(request, true), [{ evaluationId: "l_10_again", cells: 4 }]);
  });

  it("gives a checkpoint that was written anew with other weights evaluations of its own", async () => {
    assert.ok(evaluation);
    const request = { jobId: "m", step: 10, digest: "d".repeat(64), evaluation };
    await queue.submit(request, true);
    const anew = await queue.submit({ ...request, digest: "e".repeat(64) }, true);
    assert.deepEqual(anew, [{ evaluationId: `m_10_again@${"e".repeat(16)}`, cells: 4 }]);
    assert.equal(await producer.hget(redisKeys.evaluation("m_10_again"), "digest"), "d".repeat(64));
    assert.deepEqual(await queue.submit({ ...request, digest: "e".repeat(64) }, true), anew);
    assert.equal(await producer.zcard(redisKeys.evaluations("m")), 2);
  });
});
