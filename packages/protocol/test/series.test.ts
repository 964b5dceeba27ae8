import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { credentials, status } from "@grpc/grpc-js";
import {
  createClient,
  pullSeries,
  TensorRegistry,
  Tensors,
  tensorsHandlers,
  type Handlers,
  type SeriesOptions,
} from "../src/index.js";
import { breakingProxy } from "./breaking-proxy.js";
import { startLocalServer } from "./local-server.js";

const MIB = 2 ** 20;

describe("a series of tensors", () => {
  const cleanups: (() => void)[] = [];
  afterEach(() => cleanups.splice(0).forEach((cleanup) => cleanup()));

  const serve = async (handlers: Handlers<typeof Tensors>) => {
    const server = await startLocalServer(Tensors, handlers);
    cleanups.push(() => server.close());
    return server;
  };
  const publish = (registry: TensorRegistry, name: string, n: number, length: number): Uint8Array => {
    const data = randomFillSync(new Uint8Array(length));
    registry.publish(`${name}/${n}`, { dtype: "u8", shape: [length], data });
    return data;
  };
  /** Items "a", from byte 1 on, and "b". */
  const options = (
    aBytes: number,
    bBytes: number,
  ): SeriesOptions & { readonly arrays: Uint8Array[]; readonly abort: AbortController } => {
    const arrays: Uint8Array[] = [];
    const abort = new AbortController();
    const items = [
      { ref: "a/{n}", offset: 1, length: aBytes },
      { ref: "b/{n}", offset: 0, length: bBytes },
    ];
    const into = (n: number, item: number) => (arrays[2 * n + item] ??= new Uint8Array(items[item]!.length));
    return { items, firstN: 5, into, idleMs: 600_000, signal: abort.signal, arrays, abort };
  };

  it("comes in order, each as soon as it is published, without being asked for again", async () => {
    const registry = new TensorRegistry();
    cleanups.push(() => registry.close());
    const { client } = await serve(tensorsHandlers(registry));
    const wanted = options(9, 20);
    const series = pullSeries(client, wanted);
    for (let n = 5; n < 8; n++) {
      const next = series.next();
      const a = publish(registry, "a", n, 10);
      assert.deepEqual((await next).value, { n, item: 0 });
      assert.deepEqual(wanted.arrays[2 * n], a.subarray(1));
      const b = publish(registry, "b", n, 20);
      assert.deepEqual((await series.next()).value, { n, item: 1 });
      assert.deepEqual(wanted.arrays[2 * n + 1], b);
      registry.remove(`a/${n}`);
    }
    const last = series.next();
    wanted.abort.abort();
    await assert.rejects(last, { code: status.CANCELLED });
  });

  it("goes on where it stopped after lost connections", async () => {
    const registry = new TensorRegistry();
    cleanups.push(() => registry.close());
    const { port } = await serve(tensorsHandlers(registry));
    const proxy = await breakingProxy(port, [3 * MIB, 4 * MIB]);
    const client = createClient(Tensors, `127.0.0.1:${proxy.port}`, credentials.createInsecure());
    cleanups.push(() => {
      client.close();
      proxy.close();
    });
    const wanted = options(2 * MIB, 3 * MIB);
    const [a, b] = [publish(registry, "a", 5, 2 * MIB + 1), publish(registry, "b", 5, 3 * MIB)];
    const next = publish(registry, "a", 6, 2 * MIB + 1);
    const series = pullSeries(client, wanted);
    for (const item of [0, 1, 0]) assert.equal((await series.next()).value.item, item);
    wanted.abort.abort();
    await assert.rejects(series.next(), { code: status.CANCELLED });
    assert.equal(Buffer.compare(wanted.arrays[10]!, a.subarray(1)), 0);
    assert.equal(Buffer.compare(wanted.arrays[11]!, b), 0);
    assert.equal(Buffer.compare(wanted.arrays[12]!, next.subarray(1)), 0);
    assert.equal(proxy.connections(), 3);
  });

  it("is refused when a checksum is wrong, when a chunk does not follow, and when the peer falls silent", async () => {
    const chunk = { n: 5, pull: 0, offset: 0n, data: new Uint8Array(9), crc32: 0 };
    const cases = [
      { chunk, code: status.DATA_LOSS, reason: "TENSOR_DIGEST_MISMATCH" },
      { chunk: { ...chunk, n: 6 }, code: status.DATA_LOSS, reason: "TENSOR_STREAM_BROKEN" },
      { chunk: { ...chunk, data: new Uint8Array(10) }, code: status.DATA_LOSS, reason: "TENSOR_STREAM_BROKEN" },
      { chunk: undefined, code: status.DEADLINE_EXCEEDED, reason: "PULL_STALLED" },
    ];
    for (const { chunk: sent, ...error } of cases) {
      const { client } = await serve({
        async *pull() {},
        async *pullSeries(_request, { signal }) {
          if (sent) yield sent;
          await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
        },
      });
      await assert.rejects(pullSeries(client, { ...options(9, 20), idleMs: sent ? 600_000 : 200 }).next(), error);
    }
  });

  it("is refused for bytes that the tensor does not have", async () => {
    const registry = new TensorRegistry();
    cleanups.push(() => registry.close());
    const { client } = await serve(tensorsHandlers(registry));
    publish(registry, "a", 5, 9);
    await assert.rejects(pullSeries(client, options(9, 20)).next(), { code: status.OUT_OF_RANGE });
  });
});
