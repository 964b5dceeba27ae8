/**
 * npm run bench:snapshot -- --parameters 1100000000
 * A snapshot of one vector that outgrows any array, through all that a round does with it short of an engine: read page by page, hashed,
 * offered, pulled by ranges over gRPC and hashed again. Prints how long each takes, and the longest delay of the event loop meanwhile.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { stretches, type ModelSpec } from "@segue/core";
import type { Engine } from "@segue/engine";
import { pullTensor, TensorRegistry, Tensors, tensorsHandlers } from "@segue/protocol";
import { connectClient, createLogger, startGrpcServer } from "@segue/runtime";
import { ComputeHost } from "../services/worker/src/compute/host.js";
import { sharedPages } from "../services/worker/src/compute/shared.js";
import { digestOf } from "../services/worker/src/job/digest.js";
import { Snapshots } from "../services/worker/src/job/snapshots.js";
import { PullCounter } from "../services/worker/src/tensors/pull-counter.js";

const { values } = parseArgs({ options: { parameters: { type: "string", default: String(2 ** 30 + 12_345) } } });
const parameters = Number(values.parameters);
const RANGE_BYTES = 2 ** 28;

/** An engine whose parameter i is a whole number that depends on i alone. */
const engine = {
  description: { name: "cpu", detail: "counts" },
  layout: { entries: [], size: parameters },
  readParameters(into: Float32Array, offset = 0): void {
    for (let i = 0; i < into.length; i++) into[i] = (offset + i) % 16_777_213;
  },
} as unknown as Engine;

async function timed<T>(what: string, work: () => T | Promise<T>): Promise<T> {
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  const startedMs = performance.now();
  const result = await work();
  const seconds = (performance.now() - startedMs) / 1_000;
  delay.disable();
  const gigabytes = (4 * parameters) / 1e9;
  console.log(
    `${what.padEnd(24)} ${seconds.toFixed(1).padStart(7)} s ${(gigabytes / seconds).toFixed(2).padStart(7)} GB/s, event loop at most ${Math.round(delay.max / 1e6)} ms late`,
  );
  return result;
}

const registry = new TensorRegistry();
const sizes = { jobId: "bench", parameters, vectors: 1, lanesPerShard: 1, laneStateFloats: 1 };
const snapshots = new Snapshots(registry, new PullCounter(), sizes);
const server = await startGrpcServer({
  listen: "127.0.0.1:0",
  services: [{ service: Tensors, handlers: tensorsHandlers(registry) }],
  logger: createLogger("bench", "silent"),
});
const client = connectClient(Tensors, server.address);
try {
  console.log(`${parameters} parameters, ${((4 * parameters) / 2 ** 30).toFixed(2)} GiB`);
  const factory = { availableEngines: async () => [], createEngine: async () => engine, drawParameters: () => undefined };
  const host = new ComputeHost(factory, new Int32Array(new SharedArrayBuffer(4)));
  const model = {} as ModelSpec;
  await host.open({ engine: "cpu", options: { model, precision: "f32", threads: 1 }, lanesPerShard: 1 });
  const [weights = sharedPages(0)] = snapshots.modelBuffer();
  // Moments of no parameters: one vector is enough to fill this machine.
  const vectors = [weights, sharedPages(0), sharedPages(0)];
  await timed("read into pages", () => host.save({ epoch: 0, model: vectors, states: [] }));
  const digest = await timed("hashed", () => digestOf(weights, new AbortController().signal));
  snapshots.add({ step: 1, model: [weights], states: new Map(), digest });
  const pulled = await timed("served, pulled, hashed", async () => {
    const hash = createHash("sha256");
    const into = new Uint8Array(RANGE_BYTES);
    for (let offset = 0; offset < 4 * parameters; offset += RANGE_BYTES) {
      const length = Math.min(RANGE_BYTES, 4 * parameters - offset);
      const { data } = await pullTensor(client, "job/bench/snapshot/1/model", {
        offset,
        length,
        into: into.subarray(0, length),
      });
      for (let at = 0; at < length; at += 2 ** 21) {
        hash.update(data.subarray(at, Math.min(length, at + 2 ** 21)));
        await new Promise(setImmediate);
      }
    }
    return hash.digest("hex");
  });
  assert.equal(pulled, digest);
  for (const { floats, offset } of stretches(weights)) assert.equal(floats[1], (offset + 1) % 16_777_213);
  console.log(`the same SHA-256: ${digest}`);
} finally {
  client.close();
  await server.close(0);
}
