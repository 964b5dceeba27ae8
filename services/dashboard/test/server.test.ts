/* eslint-disable @typescript-eslint/no-explicit-any, @typescript-eslint/no-unsafe-member-access, @typescript-eslint/no-unsafe-assignment, @typescript-eslint/no-unsafe-call, @typescript-eslint/no-unsafe-return -- JSON off the wire is checked by the assertions themselves */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connectRedis, createLogger, queueNames, redisKeys, startPrivateRedis, type PrivateRedis } from "@segue/runtime";
import { Queue } from "bullmq";
import type { Redis } from "ioredis";
import { startDashboard, type Dashboard } from "../src/index.js";
import { PATIENCE_MS } from "../../../test/helpers/patience.js";
import { openLine } from "./line.js";
import { JOB_ID, JOB_NAME, seedCluster, seedCures, seedSteps } from "./seed.js";

const logger = createLogger("test", "silent");
const TOKEN = "a-token-of-this-test-cluster";

interface StreamEvent {
  topic: string;
  payload: any;
}

describe("dashboard server", () => {
  let dir: string;
  let server: PrivateRedis;
  let redis: Redis;
  let dashboard: Dashboard;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "segue-dashboard-"));
    server = await startPrivateRedis({ dir });
    redis = connectRedis(server.url, { logger, role: "worker" });
    await seedCluster(redis);
    dashboard = await startDashboard({ listen: "127.0.0.1:0", redis, logger, intervalMs: 50 });
  });

  after(async () => {
    await dashboard?.close();
    redis?.disconnect();
    await server?.close();
    await rm(dir, { recursive: true, force: true });
  });

  const get = async (path: string, init?: RequestInit): Promise<{ status: number; body: any }> => {
    const response = await fetch(new URL(path, dashboard.url), init);
    return { status: response.status, body: await response.json() };
  };

  it("lists jobs newest first and reads text fields as numbers", async () => {
    const { body } = await get("/api/jobs");
    assert.deepEqual(
      body.jobs.map((job: { id: string }) => job.id),
      [JOB_ID, "job-old"],
    );
    assert.equal(body.jobs[0].name, JOB_NAME);
    assert.equal(body.jobs[0].tokensPerSecond, 48_210);
  });

  it("lists every job that is not finished whatever the number of newer ones, and finished ones page by page", async () => {
    const number = 450;
    const ids = Array.from({ length: number }, (_, index) => `many-${String(index).padStart(3, "0")}`);
    const pipeline = redis.pipeline();
    ids.forEach((id, index) => {
      // The oldest three are those that run, wait and rest.
      const phase = ["RUNNING", "WAITING", "PAUSED"][index] ?? ["SUCCEEDED", "FAILED", "CANCELLED"][index % 3]!;
      pipeline.zadd(redisKeys.jobs, 1_000 + index, id);
      pipeline.hset(redisKeys.job(id), { name: id, phase, submittedAtMs: 1_000 + index });
    });
    await pipeline.exec();
    const idsOf = (body: any): string[] => body.jobs.map((job: { id: string }) => job.id);
    const first = (await get("/api/jobs")).body;
    const newestFirst = [JOB_ID, "job-old", ...ids.toReversed()];
    // `job-old` and 199 of the many.
    assert.deepEqual(idsOf(first), [...newestFirst.slice(0, 201), "many-002", "many-001", "many-000"]);
    assert.deepEqual(first.counts, { total: number + 2, finished: number - 2, older: newestFirst[200] });
    const second = (await get(`/api/jobs?older=${first.counts.older}`)).body;
    assert.deepEqual(idsOf(second), newestFirst.slice(201, 401));
    const third = (await get(`/api/jobs?older=${second.counts.older}`)).body;
    assert.deepEqual(idsOf(third), newestFirst.slice(401, 449));
    assert.equal(third.counts.older, null);
    assert.deepEqual(idsOf((await get("/api/jobs?older=no-such-job")).body), []);
    assert.equal((await get("/api/jobs?older=%2F")).status, 400);
    await redis.zrem(redisKeys.jobs, ...ids);
    await redis.del(...ids.map(redisKeys.job));
  });

  it("gives one job with spec and checkpoints, newest first, and 404 for an unknown one", async () => {
    const { body } = await get(`/api/jobs/${JOB_ID}`);
    assert.equal(body.spec.tbptt.segmentTokens, 256);
    assert.deepEqual(
      body.checkpoints.map((checkpoint: { step: number }) => checkpoint.step),
      [200, 100],
    );
    assert.deepEqual(await get("/api/jobs/no-such-job"), {
      status: 404,
      body: { code: "JOB_NOT_FOUND", message: "There is no job no-such-job." },
    });
    assert.equal((await get("/api/jobs/..%2Fx")).status, 400);
  });

  it("joins the attempts of a job to one curve", async () => {
    const { body } = await get(`/api/jobs/${JOB_ID}/series?points=1000`);
    assert.deepEqual(
      body.step,
      Array.from({ length: 300 }, (_, index) => index + 1),
    );
    assert.equal(body.loss[149], 9, "the first attempt up to its last checkpoint");
    assert.notEqual(body.loss[150], 9, "the second attempt from there");
    assert.equal((await get(`/api/jobs/${JOB_ID}/series?points=50`)).body.step.length, 50);
    assert.equal((await get(`/api/jobs/${JOB_ID}/series?points=1`)).status, 400);
  });

  it("takes a thinned stream for a long run and adds the newest steps from the full one", async () => {
    await redis.zadd(redisKeys.jobs, 1, "long");
    await redis.hset(redisKeys.job("long"), { name: "long", phase: "RUNNING", step: 1_005, attempt: 0 });
    for (let step = 10; step <= 1_000; step += 10)
      await redis.xadd(redisKeys.train("long", 0, 10), "*", "step", step, "loss", step);
    for (let step = 990; step <= 1_005; step++) await redis.xadd(redisKeys.train("long", 0), "*", "step", step, "loss", step);
    const { body } = await get("/api/jobs/long/series?points=100");
    assert.equal(body.resolution, 10);
    assert.deepEqual(body.step.slice(-7), [990, 1000, 1001, 1002, 1003, 1004, 1005]);
    await redis.zrem(redisKeys.jobs, "long");
  });

  it("gives heat maps with their cells and a few wrong answers", async () => {
    const { body } = await get(`/api/evaluations/${JOB_ID}`);
    const [newest, older] = body.evaluations;
    assert.equal(newest.step, 200);
    assert.equal(newest.cells.length, 22);
    assert.equal(older.cells.length, 25);
    assert.deepEqual(newest.cells.find((cell: any) => cell.length === 4096 && cell.depth === 0).wrong, [
      { expected: "34847", decoded: " 34841 <b>" },
    ]);
  });

  it("gives loss by position with its cures, in as many points as a screen shows", async () => {
    await seedCures(redis);
    const { body } = await get(`/api/evaluations/${JOB_ID}`);
    const byCure = new Map<string, any>((body.losses as any[]).map((loss) => [loss.cure, loss]));
    assert.deepEqual([...byCure.keys()].sort(), ["none", "reduced-0.9999-0.75", "window-8192-128"]);
    const { positions, losses, collapse, trainTokens } = byCure.get("none");
    assert.deepEqual([losses.length, positions[0], positions.at(-1)], [positions.length, 1024, 2 ** 20]);
    assert.ok(positions.length <= 240 && positions.length > 200);
    assert.deepEqual([collapse.firstPosition, trainTokens], [49_152, 16_384]);
    assert.deepEqual(byCure.get("window-8192-128").losses, []);
    assert.deepEqual(body.evaluations.map(({ cure }: any) => cure).sort(), ["none", "none", "reduced-0.9999-0.75"]);
    for (const id of ["long-text", "long-text+reduced-0.9999-0.75", "long-text+window-8192-128", "passkey+reduced-0.9999-0.75"]) {
      await redis.zrem(redisKeys.evaluations(JOB_ID), `${JOB_ID}_200_${id}`);
    }
  });

  it("gives workers, evaluators and BullMQ's counts", async () => {
    const { body: cluster } = await get("/api/workers");
    assert.deepEqual(
      cluster.workers.map((worker: any) => [worker.name, worker.shards]),
      [
        ["alpha", [0, 1, 2, 3]],
        ["beta", [4, 5, 7]],
      ],
    );
    assert.equal(cluster.evaluators[0].name, "evaluator-1");
    const queue = new Queue(queueNames.cells, { connection: redis });
    await queue.add("passkey", {}, { jobId: "cell-a" });
    await queue.add("passkey", {}, { jobId: "cell-b" });
    assert.equal((await get("/api/queue")).body.queues["segue-cells"].waiting, 2);
    await queue.obliterate({ force: true });
    await queue.close();
  });

  it("survives malformed values", async () => {
    await redis.hset(redisKeys.workers, "broken", "{not json");
    await redis.hset(redisKeys.cells(`${JOB_ID}_100_passkey`), "x", "7");
    assert.equal((await get("/api/workers")).body.workers.find((worker: any) => worker.id === "broken").name, "broken");
    assert.equal((await get(`/api/evaluations/${JOB_ID}`)).status, 200);
    await redis.hdel(redisKeys.workers, "broken");
    await redis.hdel(redisKeys.cells(`${JOB_ID}_100_passkey`), "x");
  });

  it("sends the overview and the watched job at once, then new points only", async () => {
    const stream = await openStream(`${dashboard.url}api/events?job=${JOB_ID}`);
    const first = await stream.until((events) => events.some(({ topic }) => topic === "evaluations"));
    for (const topic of ["redis", "jobs", "workers", "evaluators", "queues", "job"]) {
      assert.ok(
        first.some((event) => event.topic === topic),
        topic,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
    await seedSteps(redis, 2, 301, 303);
    const later = await stream.until((events) => events.flatMap(stepsOf).includes(303));
    assert.deepEqual(later.flatMap(stepsOf), [301, 302, 303]);
    assert.equal(later.filter(({ topic }) => topic === "workers").length, 1, "what did not change is not sent again");
    await redis.hset(redisKeys.job(JOB_ID), { attempt: 3 });
    await seedSteps(redis, 3, 201, 202);
    const resumed = await stream.until((events) => events.flatMap(stepsOf).includes(202));
    assert.deepEqual(resumed.flatMap(stepsOf), [301, 302, 303, 201, 202], "a new attempt is followed from its first step");
    stream.close();
  });

  it("sends a strict policy with every answer and serves only what it names", async () => {
    const response = await fetch(dashboard.url);
    assert.match(response.headers.get("content-security-policy") ?? "", /^default-src 'none'; script-src 'self'/);
    const html = await response.text();
    assert.doesNotMatch(html, /https?:\/\/|<style|style=/);
    for (const [, path = ""] of html.matchAll(/(?:src|href)="(\/[^"]+)"/g)) {
      assert.equal((await fetch(new URL(path, dashboard.url))).status, 200, path);
    }
    assert.equal((await get("/../package.json")).status, 404);
  });

  it("refuses a foreign Host header while there is no token", async () => {
    const { request } = await import("node:http");
    const status = await new Promise((resolve, reject) => {
      request(new URL("/api/jobs", dashboard.url), { headers: { host: "evil.example" } }, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .on("error", reject)
        .end();
    });
    assert.equal(status, 403);
  });

  it("refuses to listen for other machines without a token", async () => {
    await assert.rejects(startDashboard({ listen: "0.0.0.0:0", redis, logger }), { code: "INSECURE_LISTENER" });
  });

  it("says so when the port is taken", async () => {
    await assert.rejects(startDashboard({ listen: dashboard.address, redis, logger }), { code: "LISTEN_FAILED" });
  });

  it("asks for the token, takes it by form or as bearer, and forgets a logged-out browser", async () => {
    const guarded = await startDashboard({ listen: "127.0.0.1:0", redis, logger, token: TOKEN });
    const at = (path: string): string => `${guarded.url}${path}`;
    try {
      assert.equal((await fetch(at("api/jobs"))).status, 401);
      assert.equal((await fetch(at(""), { redirect: "manual" })).headers.get("location"), "/login");
      assert.equal((await fetch(at("healthz"))).status, 200);
      assert.equal((await fetch(at("login"))).status, 200);
      const login = (token: string): Promise<Response> =>
        fetch(at("login"), { method: "POST", body: new URLSearchParams({ token }), redirect: "manual" });
      const refused = await login("wrong");
      assert.equal(refused.headers.get("location"), "/login?wrong");
      assert.equal(refused.headers.get("set-cookie"), null);
      const cookie = (await login(TOKEN)).headers.get("set-cookie") ?? "";
      assert.match(cookie, /^segue_session=[^;]+; HttpOnly; SameSite=Strict; Path=\//);
      assert.doesNotMatch(cookie, new RegExp(TOKEN));
      const session = cookie.split(";")[0] ?? "";
      assert.equal((await fetch(at("api/jobs"), { headers: { cookie: session } })).status, 200);
      assert.equal((await fetch(at("api/jobs"), { headers: { cookie: `${session}x` } })).status, 401);
      assert.equal((await fetch(at("api/jobs"), { headers: { authorization: `Bearer ${TOKEN}` } })).status, 200);
      assert.equal((await fetch(at("api/events"))).status, 401);
      const loggedOut = await fetch(at("logout"), { method: "POST", headers: { cookie: session }, redirect: "manual" });
      assert.match(loggedOut.headers.get("set-cookie") ?? "", /Max-Age=0/);
    } finally {
      await guarded.close();
    }
  });

  it("answers 503 without Redis, says so on the stream, and goes on when Redis is back", async () => {
    const line = await openLine(server.url);
    const away = connectRedis(line.url, { logger, role: "producer" });
    const own = await startDashboard({ listen: "127.0.0.1:0", redis: away, logger, intervalMs: 50 });
    const stream = await openStream(`${own.url}api/events`);
    const redisIs = (up: boolean): Promise<unknown> =>
      stream.until((events) => events.findLast(({ topic }) => topic === "redis")?.payload.up === up);
    try {
      await redisIs(true);
      await line.cut();
      await redisIs(false);
      const response = await fetch(`${own.url}api/jobs`);
      assert.equal(response.status, 503);
      assert.deepEqual(await response.json(), { code: "REDIS_AWAY", message: "Redis does not answer." });
      assert.deepEqual(await (await fetch(`${own.url}healthz`)).json(), { serving: true, redis: "away" });
      await line.mend();
      await redisIs(true);
    } finally {
      stream.close();
      await own.close();
      away.disconnect();
      await line.cut();
    }
  });
});

function stepsOf({ topic, payload }: StreamEvent): number[] {
  return topic === "points" ? payload.step : [];
}

interface EventStream {
  until(done: (events: StreamEvent[]) => boolean): Promise<StreamEvent[]>;
  close(): void;
}

/** Collects server-sent events. */
async function openStream(url: string): Promise<EventStream> {
  const stop = new AbortController();
  // A test that waits in vain must fail and close its dashboard, not hang.
  const deadline = setTimeout(() => stop.abort(new Error("the expected events did not come")), PATIENCE_MS);
  const response = await fetch(url, { signal: stop.signal });
  assert.equal(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  const events: StreamEvent[] = [];
  let buffer = "";
  return {
    async until(done) {
      while (!done(events)) {
        const { value, done: ended } = await reader.read();
        if (ended) throw new Error("the stream ended");
        buffer += value;
        const parts = buffer.split("\n\n");
        buffer = parts.pop() ?? "";
        for (const part of parts) {
          const match = /^event: (\w+)\ndata: (.*)$/.exec(part);
          if (match) events.push({ topic: match[1] ?? "", payload: JSON.parse(match[2] ?? "") });
        }
      }
      return events;
    },
    close: () => {
      clearTimeout(deadline);
      stop.abort();
    },
  };
}
