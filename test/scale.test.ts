import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createTokenizer, parseJobSpec, passkeySource, SegmentCutter } from "@segue/core";
import type { ShardTally } from "../bench/scale/simulated-worker.js";
import { runScale, scaleSpec } from "../bench/scale/scale-run.js";

const WORKERS = 100;
const SHARDS = 200;

/** The tokens that a coordinator-free cutter gives each shard in as many steps, hashed in order. */
async function expectedTallies(received: readonly ShardTally[]): Promise<ShardTally[]> {
  const { seed, data, tbptt, batch, tokenizer: kind } = parseJobSpec(scaleSpec(WORKERS, SHARDS)).spec;
  const tokenizer = createTokenizer(kind);
  assert.ok(data.passkey);
  const source = passkeySource(tokenizer, data.passkey, seed);
  const cutter = new SegmentCutter({ source, eosId: tokenizer.eosId, seed, data, tbptt, batch });
  const hashes = received.map(() => createHash("sha256"));
  const lastStep = Math.max(...received.map(({ steps }) => steps));
  for (let step = 0; step < lastStep; step++) {
    const cut = await cutter.next();
    for (const { shard, tokens } of cut?.shards ?? []) {
      if (step < (received[shard]?.steps ?? 0)) {
        hashes[shard]?.update(new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength));
      }
    }
  }
  await cutter.close();
  return hashes.map((hash, shard) => ({ shard, steps: received[shard]?.steps ?? 0, sha256: hash.digest("hex") }));
}

describe("a coordinator with a hundred workers", () => {
  it("gives everyone each of its segments once and in order, and loses nobody", async () => {
    const { end, samples } = await runScale({
      // Nobody is to be lost because the machine is busy; how late pulses are is measured by npm run bench:scale.
      ...{ workers: WORKERS, shards: SHARDS, processes: 2, stepMs: 50, heartbeatMs: 10_000 },
      ...{ warmupSeconds: 2, seconds: 10 },
    });
    // A fault is a segment of the wrong step or shard, a round out of order, or a stream that the coordinator ended: a heartbeat lost.
    assert.deepEqual(end.faults, []);
    assert.equal(end.generations, 1);
    assert.equal(samples.length, 10);
    assert.ok(end.rounds >= 1, `${end.rounds} rounds`);
    assert.deepEqual(
      end.shards.map(({ shard }) => shard),
      Array.from({ length: SHARDS }, (_, shard) => shard),
    );
    assert.equal(
      end.segments,
      end.shards.reduce((sum, { steps }) => sum + steps, 0),
    );
    assert.deepEqual(end.shards, await expectedTallies(end.shards));
  });
});
