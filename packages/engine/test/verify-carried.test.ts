import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { decodeSafetensors, encodeSafetensors, stretches, type SafetensorsTensor } from "@segue/core";
import { createEngine, type EngineName } from "../src/create-engine.js";
import type { Engine } from "../src/engine.js";
import { createReferenceEngine } from "../src/native/index.js";
import { readCarriedCases } from "../src/verify/carried-case.js";
import { verifyCarried, type CarriedMeasurement } from "../src/verify/verify-carried.js";
import { readVerifyCase } from "../src/verify/verify-case.js";

const folderOf = (name: string): string => fileURLToPath(new URL(`golden/${name}`, import.meta.url));
const failures = (measurements: readonly CarriedMeasurement[]): string[] =>
  measurements.filter(({ pass }) => !pass).map(({ quantity, error, ...of }) => `${of.case} ${quantity} ${error}`);

async function measure(folder: string, open: (name: string) => Promise<Engine>): Promise<CarriedMeasurement[]> {
  const { model, parameters } = await readVerifyCase(folder, { seed: 0, lanes: 1, tokens: 8 });
  const engine = await open(folder);
  for (const { floats, offset } of stretches(parameters)) engine.writeParameters(floats, offset);
  try {
    return await verifyCarried(engine, await readCarriedCases(folder, model));
  } finally {
    engine.close();
  }
}

const modelOf = async (folder: string) => (await readVerifyCase(folder, { seed: 0, lanes: 1, tokens: 8 })).model;
const engineFor = (name: EngineName) => async (folder: string) =>
  createEngine(name, { model: await modelOf(folder), precision: "f32", threads: 1 });

describe("verification of carried states", () => {
  for (const name of ["carried", "carried-groups"]) {
    for (const engine of ["cpu", "tfjs"] as const) {
      it(`passes the ${engine} engine (${name})`, async () => {
        const measurements = await measure(folderOf(name), engineFor(engine));
        assert.deepEqual(failures(measurements), []);
        assert.deepEqual([...new Set(measurements.map((measurement) => measurement.case))], [0, 1, 2, 3]);
        assert.ok(measurements.some(({ quantity }) => quantity === "SSM states after segment 4"));
      });
    }

    it(`passes the reference (${name})`, async () => {
      const measurements = await measure(folderOf(name), async (folder) => createReferenceEngine(await modelOf(folder)));
      assert.deepEqual(failures(measurements), []);
    });
  }

  it("names what an implementation gets wrong", async () => {
    const forgetsResets = await measure(folderOf("carried"), async (folder) => {
      const engine = await engineFor("cpu")(folder);
      const forwardBackward = engine.forwardBackward.bind(engine);
      engine.forwardBackward = (batch, ...rest) => forwardBackward({ ...batch, resets_BT: undefined }, ...rest);
      return engine;
    });
    // Case 0 has none.
    const wrong = new Set(failures(forgetsResets).map((failure) => failure[0]));
    assert.deepEqual([...wrong], ["1", "2", "3"]);
  });

  it("refuses a file that is not whole, with what is wrong", async () => {
    const folder = await mkdtemp(join(tmpdir(), "segue-carried-"));
    try {
      await cp(folderOf("carried"), folder, { recursive: true });
      const model = await modelOf(folder);
      const refused = async (change: (tensors: Map<string, SafetensorsTensor>) => void, message: RegExp): Promise<void> => {
        const tensors = decodeSafetensors(await readFile(join(folderOf("carried"), "carried.safetensors")));
        change(tensors);
        await writeFile(join(folder, "carried.safetensors"), encodeSafetensors([...tensors.values()]));
        await assert.rejects(readCarriedCases(folder, model), { code: "VERIFY_FOLDER_INVALID", message });
      };
      await refused((tensors) => tensors.delete("1.resets"), /it has no 1\.resets/);
      await refused((tensors) => {
        const segments = tensors.get("0.segments")!;
        tensors.set("0.segments", { ...segments, data: new Uint8Array(segments.data.length) });
      }, /0\.segments does not add up to 63 tokens/);
      await rm(join(folder, "carried.safetensors"));
      assert.deepEqual(await readCarriedCases(folder, model), []);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
