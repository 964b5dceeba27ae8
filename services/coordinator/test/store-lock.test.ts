import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { lockStore } from "../src/store/store-lock.js";

describe("store lock", () => {
  let store: string;
  beforeEach(async () => {
    store = await mkdtemp(join(tmpdir(), "segue-lock-"));
  });
  afterEach(() => rm(store, { recursive: true }));

  const lock = () => lockStore(store, (error) => assert.fail(error));
  const lease = (more: object) =>
    writeFile(
      join(store, "lock"),
      JSON.stringify({ token: "t", host: "elsewhere", pid: 1, processToken: "p", renewedAtMs: Date.now(), ...more }),
    );

  it("has one holder, and is free after its release", async () => {
    const first = await lock();
    await assert.rejects(lock(), { code: "STORE_LOCKED" });
    await first.release();
    await (await lock()).release();
    await assert.rejects(readFile(join(store, "lock")), { code: "ENOENT" });
  });

  it("honours a lease on another machine until it runs out", async () => {
    await lease({});
    await assert.rejects(lock(), { code: "STORE_LOCKED", message: /elsewhere/ });
    await lease({ renewedAtMs: Date.now() - 11_000 });
    await (await lock()).release();
  });

  it("takes over at once from a dead process, also one that had this process's number, and from half a file", async () => {
    await lease({ host: hostname(), pid: 2 ** 22 - 1 });
    await (await lock()).release();
    await lease({ host: hostname(), pid: process.pid });
    await (await lock()).release();
    await writeFile(join(store, "lock"), '{"tok');
    await (await lock()).release();
  });

  it("lets only one of several take a stale lease", async () => {
    await lease({ renewedAtMs: 0 });
    const results = await Promise.allSettled(Array.from({ length: 8 }, lock));
    const winners = results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
    assert.equal(winners.length, 1);
    await winners[0]?.release();
  });
});
