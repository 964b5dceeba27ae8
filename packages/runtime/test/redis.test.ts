import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect as connectSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Queue, Worker } from "bullmq";
import type { Redis } from "ioredis";
import { until } from "../../../test/helpers/patience.js";
import {
  connectRedis,
  createLogger,
  MetricsWriter,
  redisKeys,
  startPrivateRedis,
  type PrivateRedis,
  type RedisRole,
} from "../src/index.js";

const logger = createLogger("test", "silent");

describe("private Redis and what is written to it", () => {
  let dir: string;
  let server: PrivateRedis;
  const clients: Redis[] = [];
  const connect = (url: string, role: RedisRole = "reader"): Redis => {
    const redis = connectRedis(url, { logger, role });
    clients.push(redis);
    return redis;
  };

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "segue-redis-"));
    server = await startPrivateRedis({ dir });
  });
  afterEach(() => clients.splice(0).forEach((redis) => redis.disconnect()));
  after(async () => {
    await server.close();
    rmSync(dir, { recursive: true });
  });

  it("is durable, never evicts and wants its password", async () => {
    const settings = await connect(server.url).call("CONFIG", "GET", "appendonly", "appendfsync", "maxmemory-policy", "bind");
    const text = JSON.stringify(settings);
    for (const value of ["yes", "everysec", "noeviction", "127.0.0.1"])
      assert.ok(text.includes(`"${value}"`), `${value} in ${text}`);
    const stranger = connect(server.url.replace(/:\/\/.*@/, "://"));
    await assert.rejects(stranger.set("a", "b"), /NOAUTH/);
  });

  it("keeps its data over a restart", async () => {
    const folder = mkdtempSync(join(tmpdir(), "segue-redis-"));
    const first = await startPrivateRedis({ dir: folder });
    await connect(first.url).set("kept", "yes");
    await first.close();
    await first.close();
    const second = await startPrivateRedis({ dir: folder });
    assert.equal(await connect(second.url).get("kept"), "yes");
    await second.close();
    rmSync(folder, { recursive: true });
  });

  it("comes back after SIGKILL on the same address with what it had synced", async () => {
    const folder = mkdtempSync(join(tmpdir(), "segue-redis-"));
    const mortal = await startPrivateRedis({ dir: folder });
    await connect(mortal.url).set("kept", "yes");
    // It has gone from memory into the append-only file, within a second or so.
    const isSynced = (info: string): boolean => /aof_pending_bio_fsync:0\b/.test(info) && /aof_buffer_length:0\b/.test(info);
    const reader = connect(mortal.url);
    await until(async () => isSynced(await reader.info("persistence")), "the append-only file");
    await mortal.kill();
    await mortal.restart();
    assert.equal(await connect(mortal.url).get("kept"), "yes");
    await mortal.close();
    rmSync(folder, { recursive: true });
  });

  it("ends when its parent is killed", async function () {
    if (process.platform !== "linux") this.skip();
    const folder = mkdtempSync(join(tmpdir(), "segue-redis-"));
    const module = join(import.meta.dirname, "../src/index.ts");
    const script = `const { startPrivateRedis } = await import(${JSON.stringify(module)});
      console.log((await startPrivateRedis({ dir: ${JSON.stringify(folder)} })).url); setInterval(() => {}, 1000);`;
    const args = ["--import=tsx", "--conditions=segue-source", "--input-type=module", "-e", script];
    const parent = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    const [url] = (await once(createInterface(parent.stdout), "line")) as [string];
    assert.equal(await connect(url).ping(), "PONG");
    parent.kill("SIGKILL");
    await once(parent, "exit");
    await until(() => refuses(url), "the end of redis-server");
    rmSync(folder, { recursive: true, force: true });
  });

  it("serves BullMQ with a producer and a worker connection", async () => {
    const producer = connect(server.url, "producer");
    await once(producer, "ready");
    const queue = new Queue<{ n: number }>("probe", { connection: producer });
    const worker = new Worker<{ n: number }, number>("probe", async ({ data }) => data.n * 2, {
      connection: connect(server.url, "worker"),
    });
    const completed = once(worker, "completed");
    await queue.add("double", { n: 21 });
    assert.equal(((await completed) as [unknown, number])[1], 42);
    await worker.close();
    await queue.close();
  });

  it("takes metrics in batches, in order, and caps streams", async () => {
    const redis = connect(server.url, "producer");
    await once(redis, "ready");
    const writer = new MetricsWriter(redis, logger, { flushMs: 20 });
    const listener = connect(server.url);
    await listener.subscribe(redisKeys.events);
    const message = once(listener, "message");
    writer.hash(redisKeys.job("j"), { step: 1, loss: 2.5, reason: undefined });
    writer.hash(redisKeys.job("j"), { step: 2 });
    for (let step = 0; step < 2_000; step++) writer.stream(redisKeys.train("j", 1), 100, { step });
    writer.zadd(redisKeys.jobs, 5, "j");
    writer.publish(redisKeys.events, "j");
    assert.equal(((await message) as [string, string])[1], "j");
    await writer.close();
    await writer.close();
    assert.deepEqual({ ...(await redis.hgetall(redisKeys.job("j"))) }, { step: "2", loss: "2.5" });
    const length = await redis.xlen(redisKeys.train("j", 1));
    assert.ok(length >= 100 && length < 400, `${length} entries`);
    assert.deepEqual(await redis.zrange(redisKeys.jobs, "0", "-1"), ["j"]);
    assert.equal(writer.dropped, 0);
  });

  it("drops and counts the oldest metrics while Redis is away, without throwing", async () => {
    const folder = mkdtempSync(join(tmpdir(), "segue-redis-"));
    const passing = await startPrivateRedis({ dir: folder });
    const redis = connect(passing.url, "producer");
    await once(redis, "ready");
    const writer = new MetricsWriter(redis, logger, { flushMs: 10, maxPending: 100 });
    await passing.close();
    for (let step = 0; step < 1_000; step++) writer.stream("s", 10, { step });
    await until(
      () => writer.dropped >= 900,
      () => `900 dropped metrics; there are ${writer.dropped}`,
    );
    await writer.close();
    assert.equal(writer.dropped, 1_000);
    writer.publish("late", "ignored");
    assert.equal(writer.dropped, 1_001);
    rmSync(folder, { recursive: true });
  });
});

/** Whether nobody listens at an address. */
async function refuses(url: string): Promise<boolean> {
  const { hostname, port } = new URL(url);
  const socket = connectSocket(Number(port), hostname);
  try {
    await once(socket, "connect");
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ECONNREFUSED";
  } finally {
    socket.destroy();
  }
}
