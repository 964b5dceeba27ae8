import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { nativeLibrary } from "../src/devices/cpu/build.js";
import { probeCpu } from "../src/native/index.js";
import { trainFor, type WorkerTask } from "./native-worker.js";

/** Starts and exits under load; 200 of them take minutes. */
const NUM_EXITS = Number(process.env.EXIT_TEST_STARTS ?? 4);

describe("cpu kernels in a process", () => {
  before(() => nativeLibrary());

  it("work in several worker threads and the main one at once, with the same bits", async () => {
    const task: WorkerTask = { steps: 3, threads: 2 };
    const workers = [0, 1].map(() => new Worker(new URL("./native-worker.mjs", import.meta.url), { workerData: task }));
    const digestOf = async (worker: Worker): Promise<string> => {
      const exit = once(worker, "exit");
      const [digest] = (await once(worker, "message")) as [string];
      await exit;
      return digest;
    };
    let own = "";
    const [digests] = await Promise.all([Promise.all(workers.map(digestOf)), trainFor(task, (digest) => (own = digest))]);
    assert.deepEqual(digests, [own, own]);
  });

  it(`let it exit cleanly ${NUM_EXITS} times while threads are inside them`, async () => {
    for (let start = 0; start < NUM_EXITS; start++) {
      const way = start % 2 === 0 ? "exit" : "terminate";
      const script = fileURLToPath(new URL("./native-exit.ts", import.meta.url));
      const child = spawn(process.execPath, [...process.execArgv, script, way, String((start * 7) % 50)], {
        stdio: ["ignore", "ignore", "pipe"],
      });
      let errors = "";
      child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
      const [code, signal] = (await once(child, "close")) as [number | null, string | null];
      assert.deepEqual({ code, signal }, { code: 0, signal: null }, `start ${start} (${way}): ${errors}`);
    }
  });
});

describe("nativeLibrary", () => {
  let folder: string;
  before(() => (folder = mkdtempSync(join(tmpdir(), "segue-native-"))));
  after(() => rmSync(folder, { recursive: true }));

  it("builds once and is found again", async () => {
    assert.equal(await nativeLibrary(), await nativeLibrary());
    assert.ok("detail" in (await probeCpu(0)));
  });

  it("says which package is missing where there is no compiler", async () => {
    const env = { ...process.env, CXX: join(folder, "no-such-compiler"), XDG_CACHE_HOME: folder };
    await assert.rejects(nativeLibrary(env), { code: "ENGINE_UNAVAILABLE", message: /install the package g\+\+/ });
  });

  it("takes the library that SEGUE_NATIVE_LIB names, and says so if it is not there", async () => {
    const library = await nativeLibrary();
    assert.equal(await nativeLibrary({ SEGUE_NATIVE_LIB: library }), library);
    const missing = { SEGUE_NATIVE_LIB: join(folder, "missing.so") };
    await assert.rejects(nativeLibrary(missing), { code: "ENGINE_UNAVAILABLE", message: /does not exist/ });
  });
});
