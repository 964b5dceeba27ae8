import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { EngineOptions } from "../src/engine.js";
import { availableEngines, createEngine } from "../src/create-engine.js";
import { readGolden } from "./native-support.js";

const OPTIONS: EngineOptions = { model: readGolden("tiny").model, precision: "f32", threads: 1 };

describe("createEngine", () => {
  it("lists every engine, fastest first, with the reason where one does not work", async () => {
    const offers = await availableEngines();
    assert.deepEqual(
      offers.map(({ name }) => name),
      ["cuda", "cpu", "tfjs"],
    );
    for (const { detail, reason } of offers)
      assert.ok(reason === undefined ? detail.length > 0 : reason.length > 0 && detail === "");
    assert.equal(offers[2]?.reason, undefined);
  });

  it("says how many threads an engine would be given", async function () {
    const detailWith = async (threads: number): Promise<string> => {
      return (await availableEngines(threads)).find(({ name }) => name === "cpu")?.detail ?? "";
    };
    const detail = await detailWith(1);
    if (detail === "") return this.skip();
    assert.match(detail, /, 1 thread\)$/);
    assert.match(await detailWith(3), /, 3 threads\)$/);
  });

  it("takes the first engine that works for auto", async () => {
    const first = (await availableEngines()).find(({ reason }) => reason === undefined);
    const engine = await createEngine("auto", OPTIONS);
    assert.equal(engine.description.name, first?.name);
    engine.close();
  });

  it("refuses an engine that does not work here, with the reason", async function () {
    const cuda = (await availableEngines()).find(({ name }) => name === "cuda");
    if (cuda?.reason === undefined) return this.skip();
    await assert.rejects(createEngine("cuda", OPTIONS), { code: "ENGINE_UNAVAILABLE", message: cuda.reason });
  });

  it("loads TensorFlow.js only when that engine is chosen, and then prints nothing and hooks into nothing", async () => {
    const program = `
      import { createEngine } from "@segue/engine";
      import { createRequire } from "node:module";
      const loaded = () => Object.keys(createRequire(import.meta.url).cache).some((file) => file.includes("@tensorflow"));
      const hooks = () => process.listenerCount("uncaughtException") + process.listenerCount("unhandledRejection");
      const before = loaded();
      const hooksBefore = hooks();
      const engine = await createEngine("tfjs", ${JSON.stringify(OPTIONS)});
      if (before || !loaded() || hooks() !== hooksBefore) process.exitCode = 1;
      engine.close();`;
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ["--import=tsx", "--conditions=segue-source", "--input-type=module", "--eval", program],
      { cwd: new URL("../../..", import.meta.url) },
    );
    assert.equal(stdout, "");
  });
});
