import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { readModelFolder, writeModelFolder } from "../src/checkpoint-folder.js";
import { GOLDEN_CASES, readGolden } from "./native-support.js";

describe("model folders", () => {
  let folder: string;
  beforeEach(async () => (folder = await mkdtemp(join(tmpdir(), "segue-model-"))));
  afterEach(() => rm(folder, { recursive: true }));

  it("reads what Hugging Face wrote, and writes it back to the bit", async () => {
    for (const name of GOLDEN_CASES) {
      const golden = readGolden(name);
      const read = await readModelFolder(fileURLToPath(new URL(`golden/${name}`, import.meta.url)));
      assert.deepEqual(read.parameters, golden.parameters);
      assert.equal(read.model.groups, golden.model.groups);
      assert.equal(read.model.tieEmbeddings, golden.model.tieEmbeddings);
      const copy = join(folder, "exports", name);
      await writeModelFolder(copy, read, 0);
      assert.deepEqual(await readModelFolder(copy), read);
    }
  });

  it("refuses damaged files", async () => {
    const golden = await readModelFolder(fileURLToPath(new URL("golden/tiny", import.meta.url)));
    await writeModelFolder(folder, golden, 0);
    const path = join(folder, "model.safetensors");
    const bytes = await readFile(path);
    await writeFile(path, bytes.subarray(0, bytes.length - 4));
    await assert.rejects(readModelFolder(folder), { code: "SAFETENSORS_INVALID" });
    await writeFile(join(folder, "config.json"), "{");
    await assert.rejects(readModelFolder(folder), { code: "MODEL_UNSUPPORTED" });
    await assert.rejects(readModelFolder(join(folder, "nowhere")), { code: "ENOENT" });
  });
});
