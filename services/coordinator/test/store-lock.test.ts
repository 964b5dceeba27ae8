import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { SegueError } from "@segue/core";
import { lockStore } from "../src/store/store-lock.js";
import { until } from "../../../test/helpers/patience.js";
import { SPEC, TestCluster } from "./helpers/cluster.js";
import { StepGate } from "./helpers/step-gate.js";

/** Size and time of change of every file below a folder. */
async function contents(folder: string): Promise<Record<string, string>> {
  const names = await readdir(folder, { recursive: true });
  const entries = names.sort().map(async (name): Promise<[string, string]> => {
    const { size, mtimeMs } = await stat(join(folder, name));
    return [name, `${size} ${mtimeMs}`];
  });
  return Object.fromEntries(await Promise.all(entries));
}

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

  it("makes a coordinator whose lease was taken end without another write", async () => {
    let lost: (error: Error) => void = () => undefined;
    const theft = new Promise<Error>((resolve) => (lost = resolve));
    const cluster = await TestCluster.start({ onStoreLost: (error) => lost(error) });
    try {
      const gate = StepGate.after(8);
      const worker = await cluster.worker({ onStep: gate.pass });
      const jobId = await cluster.submit(SPEC.replace("steps: 24", "steps: 2000"));
      await cluster.until(jobId, ({ step }) => step >= 8);
      // The job is held: soon nothing is left to be written but the lease, which this replaces.
      let last = {};
      const isQuiet = async (): Promise<boolean> => {
        const { lock: lease, ...now } = await contents(cluster.store);
        assert.ok(lease);
        const before = last;
        last = now;
        return isDeepStrictEqual(now, before);
      };
      await until(isQuiet, "the store to be quiet", 300);
      const lease = { token: "thief", host: "elsewhere", pid: 1, processToken: "p", renewedAtMs: Date.now() };
      await writeFile(join(cluster.store, "lock"), JSON.stringify(lease));
      const before = await contents(cluster.store);
      gate.moveTo(500);
      await until(() => worker.log.filter((line) => line.startsWith("done")).length > 5, "more rounds");
      assert.equal(((await theft) as SegueError).code, "STORE_LOCKED");
      await cluster.stopCoordinator();
      assert.deepEqual(await contents(cluster.store), before);
    } finally {
      await cluster.close();
    }
  });

  it("lets only one of several take a stale lease", async () => {
    await lease({ renewedAtMs: 0 });
    const results = await Promise.allSettled(Array.from({ length: 8 }, lock));
    const winners = results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
    assert.equal(winners.length, 1);
    await winners[0]?.release();
  });
});
