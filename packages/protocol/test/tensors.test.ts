import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { credentials, status } from "@grpc/grpc-js";
import {
  createClient,
  pullSeries,
  pullTensor,
  TensorRegistry,
  Tensors,
  tensorsHandlers,
  type CallContext,
  type Handlers,
  type MessageInitShape,
  type PullResponseSchema,
} from "../src/index.js";
import { breakingProxy } from "./breaking-proxy.js";
import { startLocalServer } from "./local-server.js";

type Response = MessageInitShape<typeof PullResponseSchema>;

const MIB = 2 ** 20;
const randomBytes = (length: number): Uint8Array => randomFillSync(new Uint8Array(length));
const bytesTensor = (data: Uint8Array) => ({ dtype: "u8" as const, shape: [data.byteLength], data });

describe("pulled tensors", () => {
  const cleanups: (() => void)[] = [];
  afterEach(() => cleanups.splice(0).forEach((cleanup) => cleanup()));

  const serve = async (handlers: Handlers<typeof Tensors>) => {
    const server = await startLocalServer(Tensors, handlers);
    cleanups.push(() => server.close());
    return server;
  };
  const serveRegistry = async (fallback?: Parameters<typeof tensorsHandlers>[1]) => {
    const registry = new TensorRegistry();
    cleanups.push(() => registry.close());
    return { registry, ...(await serve(tensorsHandlers(registry, fallback))) };
  };

  it("arrive whole, with dtype and shape, aligned for floats", async () => {
    const { registry, client } = await serveRegistry();
    const weights = Float32Array.from({ length: 700_003 }, (_, i) => Math.sin(i));
    registry.publish("w", { dtype: "f32", shape: [700_003], data: new Uint8Array(weights.buffer) });
    const { dtype, shape, data } = await pullTensor(client, "w");
    assert.equal(dtype, "f32");
    assert.deepEqual(shape, [700_003]);
    assert.deepEqual(new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4), weights);
  });

  it("arrive as ranges, into memory of the caller", async () => {
    const { registry, client } = await serveRegistry();
    const bytes = randomBytes(3 * MIB + 17);
    registry.publish("t", bytesTensor(bytes));
    const into = new Uint8Array(2 * MIB + 5);
    const pulled = await pullTensor(client, "t", { offset: 1001, length: into.byteLength, into });
    assert.equal(pulled.data, into);
    assert.deepEqual(into, bytes.slice(1001, 1001 + into.byteLength));
    await assert.rejects(pullTensor(client, "t", { into: new Uint8Array(5) }), { reason: "TENSOR_SIZE_MISMATCH" });
    await assert.rejects(pullTensor(client, "t", { offset: bytes.byteLength + 1 }), { code: status.OUT_OF_RANGE });
  });

  it("arrive the same from pages, whole, in ranges across their borders and in series", async () => {
    const { registry, client } = await serveRegistry();
    const bytes = randomBytes(3 * MIB + 40);
    const borders = [0, 4, MIB + 12, MIB + 12, 2 * MIB, bytes.byteLength];
    const pages = borders.slice(1).map((end, i) => bytes.slice(borders[i], end));
    registry.publish("t/1", { dtype: "f32", shape: [bytes.byteLength / 4], pages });
    assert.deepEqual((await pullTensor(client, "t/1")).data, bytes);
    for (const [offset, length] of [
      [0, 5],
      [3, MIB + 30],
      [MIB + 11, 1],
      [MIB + 12, MIB],
      [2 * MIB - 1, MIB + 41],
    ] as const) {
      assert.deepEqual((await pullTensor(client, "t/1", { offset, length })).data, bytes.slice(offset, offset + length));
    }
    const into = new Uint8Array(2 * MIB);
    const items = [{ ref: "t/{n}", offset: 2, length: into.byteLength }];
    const ended = new AbortController();
    const series = pullSeries(client, { items, firstN: 1, into: () => into, idleMs: 10_000, signal: ended.signal });
    await series.next();
    ended.abort();
    assert.deepEqual(into, bytes.slice(2, 2 + into.byteLength));
    const short = { dtype: "f32" as const, shape: [3], pages: [new Uint8Array(8), new Uint8Array(3)] };
    assert.throws(() => registry.publish("short", short), { reason: "TENSOR_SIZE_MISMATCH" });
  });

  it("can be pulled thousands of times over one connection", async () => {
    const { registry, client } = await serveRegistry();
    registry.publish("t", bytesTensor(randomBytes(8)));
    for (let i = 0; i < 100; i++) await Promise.all(Array.from({ length: 30 }, () => pullTensor(client, "t")));
  });

  it("may be empty", async () => {
    const { registry, client } = await serveRegistry();
    registry.publish("nothing", { dtype: "f32", shape: [0, 4], data: new Uint8Array(0) });
    assert.equal((await pullTensor(client, "nothing")).data.byteLength, 0);
  });

  it("are streamed with bounded memory while the reader is slow", async () => {
    const { registry, client } = await serveRegistry();
    registry.publish("big", bytesTensor(new Uint8Array(192 * MIB)));
    const before = process.memoryUsage().arrayBuffers;
    let peak = 0;
    let chunks = 0;
    for await (const { part } of client.pull({ ref: "big" })) {
      if (part.case === "chunk") chunks++;
      if (chunks % 8 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
      peak = Math.max(peak, process.memoryUsage().arrayBuffers - before);
    }
    assert.equal(chunks, 192);
    assert.ok(peak < 128 * MIB, `${Math.round(peak / MIB)} MiB in flight`);
  });

  it("are waited for", async () => {
    const { registry, client } = await serveRegistry();
    const bytes = randomBytes(100);
    setTimeout(() => registry.publish("late", bytesTensor(bytes)), 100);
    assert.deepEqual((await pullTensor(client, "late", { waitMs: 60_000 })).data, bytes);
    await assert.rejects(pullTensor(client, "never", { waitMs: 50 }), { code: status.NOT_FOUND });
  });

  it("come from files", async () => {
    const folder = mkdtempSync(join(tmpdir(), "segue-tensors-"));
    cleanups.push(() => rmSync(folder, { recursive: true }));
    const path = join(folder, "weights");
    const bytes = randomBytes(2 * MIB + 3);
    writeFileSync(path, bytes);
    const { client } = await serveRegistry(async (ref) =>
      ref === "file" ? { dtype: "u8", shape: [bytes.byteLength], path } : undefined,
    );
    assert.deepEqual((await pullTensor(client, "file", { offset: 5 })).data, bytes.slice(5));
    truncateSync(path, 1000);
    await assert.rejects(pullTensor(client, "file"), { code: status.DATA_LOSS });
  });

  it("come from ranges of several files", async () => {
    const folder = mkdtempSync(join(tmpdir(), "segue-tensors-"));
    cleanups.push(() => rmSync(folder, { recursive: true }));
    const first = randomBytes(MIB + 10);
    const second = randomBytes(2 * MIB);
    writeFileSync(join(folder, "first"), first);
    writeFileSync(join(folder, "second"), second);
    const ranges = [
      { path: join(folder, "first"), offset: 10, length: MIB },
      { path: join(folder, "second"), offset: 7, length: MIB + 1 },
    ];
    const { client } = await serveRegistry(async () => ({ dtype: "u8", shape: [2 * MIB + 1], ranges }));
    const expected = Buffer.concat([first.subarray(10), second.subarray(7, MIB + 8)]);
    assert.deepEqual(Buffer.from((await pullTensor(client, "file")).data), expected);
    const middle = await pullTensor(client, "file", { offset: MIB - 3, length: 6 });
    assert.deepEqual(Buffer.from(middle.data), expected.subarray(MIB - 3, MIB + 3));
    truncateSync(join(folder, "second"), 1000);
    await assert.rejects(pullTensor(client, "file"), { code: status.DATA_LOSS });
  });

  it("are refused when a checksum is wrong", async () => {
    const { client } = await serve(scripted(randomBytes(1000), [[0, 1000]], () => crc32("something else")));
    await assert.rejects(pullTensor(client, "x"), { code: status.DATA_LOSS, reason: "TENSOR_DIGEST_MISMATCH" });
  });

  it("are refused when a chunk is missing, out of order, or too long", async () => {
    const bytes = randomBytes(1000);
    for (const cuts of [
      [[0, 500]],
      [
        [500, 1000],
        [0, 500],
      ],
      [
        [0, 1000],
        [0, 1000],
      ],
    ] as [number, number][][]) {
      const { client } = await serve(scripted(bytes, cuts));
      await assert.rejects(pullTensor(client, "x"), { code: status.DATA_LOSS, reason: "TENSOR_STREAM_BROKEN" });
    }
  });

  it("fail in bounded time when the peer falls silent", async () => {
    const silent = async function* (_request: unknown, { signal }: CallContext): AsyncGenerator<never> {
      yield* [];
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    };
    const { client } = await serve({ pull: silent, pullSeries: silent });
    await assert.rejects(pullTensor(client, "x", { idleMs: 100 }), { code: status.DEADLINE_EXCEEDED, reason: "PULL_STALLED" });
  });

  it("stop when the caller's signal aborts", async () => {
    const { client } = await serveRegistry();
    const pulling = pullTensor(client, "never", { waitMs: 10_000, signal: AbortSignal.timeout(50) });
    await assert.rejects(pulling, { code: status.CANCELLED });
  });

  it("go on where they stopped after lost connections", async () => {
    const { registry, port } = await serveRegistry();
    const bytes = randomBytes(24 * MIB + 1);
    registry.publish("t", bytesTensor(bytes));
    const proxy = await breakingProxy(port, [5 * MIB, 9 * MIB]);
    const client = createClient(Tensors, `127.0.0.1:${proxy.port}`, credentials.createInsecure());
    cleanups.push(() => {
      client.close();
      proxy.close();
    });
    const { data } = await pullTensor(client, "t", { offset: 3 });
    assert.ok(Buffer.compare(data, bytes.subarray(3)) === 0);
    assert.equal(proxy.connections(), 3);
    assert.ok(proxy.bytes() < 24 * MIB + 9 * MIB, `${Math.round(proxy.bytes() / MIB)} MiB travelled`);
  });

  it("fail with UNAVAILABLE when no attempt gets anywhere", async () => {
    const proxy = await breakingProxy(1, []);
    const client = createClient(Tensors, `127.0.0.1:${proxy.port}`, credentials.createInsecure());
    cleanups.push(() => {
      client.close();
      proxy.close();
    });
    await assert.rejects(pullTensor(client, "t"), { code: status.UNAVAILABLE });
  });
});

describe("TensorRegistry", () => {
  it("never changes what a reference means", () => {
    const registry = new TensorRegistry();
    registry.publish("a", bytesTensor(new Uint8Array(4)));
    assert.throws(() => registry.publish("a", bytesTensor(new Uint8Array(4))), { reason: "TENSOR_EXISTS" });
  });

  it("refuses data that does not fit the shape", () => {
    const registry = new TensorRegistry();
    const wrong = { dtype: "f32" as const, shape: [2], data: new Uint8Array(4) };
    assert.throws(() => registry.publish("a", wrong), { reason: "TENSOR_SIZE_MISMATCH" });
  });

  it("forgets by reference and by prefix", () => {
    const registry = new TensorRegistry();
    for (const ref of ["job/1/a", "job/1/b", "job/10/a"]) registry.publish(ref, bytesTensor(new Uint8Array(1)));
    assert.equal(registry.removePrefix("job/1/"), 2);
    assert.equal(registry.has("job/10/a"), true);
    assert.equal(registry.remove("job/10/a"), true);
    assert.equal(registry.get("job/10/a"), undefined);
  });

  it("ends every wait when it closes or the signal aborts", async () => {
    const registry = new TensorRegistry();
    const aborted = registry.waitFor("a", 60_000, AbortSignal.timeout(20));
    assert.equal(await aborted, undefined);
    const closed = registry.waitFor("a", 60_000);
    registry.close();
    assert.equal(await closed, undefined);
  });
});

/** A peer that sends the given cuts of the bytes, whatever was asked. */
function scripted(
  bytes: Uint8Array,
  cuts: readonly (readonly [number, number])[],
  checksum: (data: Uint8Array) => number = crc32,
): Handlers<typeof Tensors> {
  return {
    async *pull(): AsyncGenerator<Response> {
      const total = BigInt(bytes.byteLength);
      yield {
        part: { case: "header", value: { ref: "x", dtype: "u8", shape: [total], totalBytes: total, offset: 0n, length: total } },
      };
      for (const [from, to] of cuts) {
        const data = bytes.slice(from, to);
        yield { part: { case: "chunk", value: { offset: BigInt(from), data, crc32: checksum(data) } } };
      }
    },
    async *pullSeries(): AsyncGenerator<never> {},
  };
}
