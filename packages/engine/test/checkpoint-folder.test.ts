import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { encodeSafetensors, onePage, parameterLayout, roundToBf16, type ModelSpec, type SafetensorsTensor } from "@segue/core";
import { readModelFolder } from "../src/checkpoint-folder.js";
import { exportFolder, writeModelFolder } from "../src/export-folder.js";
import { GOLDEN_CASES, readGolden } from "./native-support.js";

/** The tensors of a flat vector, named as Hugging Face does. */
function tensorsOf(model: ModelSpec, parameters: Float32Array): SafetensorsTensor[] {
  return parameterLayout(model).entries.map(({ name, shape, offset, size }) => ({
    ...{ name, dtype: "F32", shape },
    data: new Uint8Array(parameters.buffer, parameters.byteOffset + 4 * offset, 4 * size),
  }));
}

describe("model folders", () => {
  let folder: string;
  beforeEach(async () => (folder = await mkdtemp(join(tmpdir(), "segue-model-"))));
  afterEach(() => rm(folder, { recursive: true }));

  it("reads what Hugging Face wrote, and writes it back to the bit", async () => {
    for (const name of GOLDEN_CASES) {
      const golden = readGolden(name);
      const read = await readModelFolder(fileURLToPath(new URL(`golden/${name}`, import.meta.url)));
      assert.deepEqual(read.parameters, onePage(golden.parameters));
      assert.equal(read.model.groups, golden.model.groups);
      assert.equal(read.model.tieEmbeddings, golden.model.tieEmbeddings);
      const copy = join(folder, "exports", name);
      await writeModelFolder(copy, read, 0);
      assert.deepEqual(await readModelFolder(copy), read);
    }
  });

  it("reads what state-spaces wrote: other keys and names, a tied head stored twice, a padded vocabulary", async () => {
    const golden = readGolden("tiny");
    const { model } = golden;
    const config = {
      ...{ d_model: model.dModel, n_layer: model.layers, vocab_size: model.vocab - 5, pad_vocab_size_multiple: 16 },
      ssm_cfg: { layer: "Mamba2", d_state: model.dState, headdim: model.headDim, chunk_size: model.chunk },
    };
    const tensors = tensorsOf(model, golden.parameters).map((tensor) => ({
      ...tensor,
      name: tensor.name.replace("embeddings", "embedding"),
    }));
    await writeFile(join(folder, "config.json"), JSON.stringify(config));
    const file = encodeSafetensors([...tensors, { ...tensors[0]!, name: "lm_head.weight" }]);
    await writeFile(join(folder, "model.safetensors"), file);
    const read = await readModelFolder(folder);
    assert.deepEqual(read, { model: { ...model, padVocabMultiple: 16 }, parameters: onePage(golden.parameters) });
    // What is exported is Hugging Face's layout, whose vocabulary is the padded one.
    const copy = join(folder, "copy");
    await writeModelFolder(copy, read, 0);
    assert.deepEqual(await readModelFolder(copy), { model, parameters: onePage(golden.parameters) });
  });

  it("reads a model in several files by their index, and no file outside the folder", async () => {
    const { model, parameters } = readGolden("untied");
    await writeModelFolder(folder, { model, parameters: onePage(parameters) }, 0);
    await rm(join(folder, "model.safetensors"));
    const writeIndex = (index: unknown): Promise<void> =>
      writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify(index));
    const tensors = tensorsOf(model, parameters);
    const files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    await writeFile(join(folder, files[0]!), encodeSafetensors(tensors.slice(0, 5)));
    await writeFile(join(folder, files[1]!), encodeSafetensors(tensors.slice(5)));
    await writeIndex({ weight_map: Object.fromEntries(tensors.map(({ name }, i) => [name, files[i < 5 ? 0 : 1]])) });
    assert.deepEqual(await readModelFolder(folder), { model, parameters: onePage(parameters) });
    const inPages = await readModelFolder(folder, 61);
    assert.equal(inPages.parameters.pages.length, Math.ceil(parameters.length / 61));
    assert.deepEqual(Float32Array.from(inPages.parameters.pages.flatMap((page) => [...page])), parameters);
    await writeModelFolder(join(folder, "copy"), inPages, 0);
    assert.deepEqual(await readModelFolder(join(folder, "copy")), { model, parameters: onePage(parameters) });
    // A whole file is read before an index, as transformers does.
    await writeFile(join(folder, "model.safetensors"), encodeSafetensors([...tensors, { ...tensors[0]!, name: "extra" }]));
    await assert.rejects(readModelFolder(folder), { code: "CHECKPOINT_MISMATCH" });
    await rm(join(folder, "model.safetensors"));
    await writeFile(join(folder, files[0]!), encodeSafetensors(tensors.slice(0, 6)));
    await assert.rejects(readModelFolder(folder), /is there twice/);
    await writeFile(join(folder, files[0]!), encodeSafetensors(tensors.slice(0, 5)));
    await writeIndex({ weight_map: { "backbone.norm_f.weight": files[1] } });
    await assert.rejects(readModelFolder(folder), { code: "CHECKPOINT_MISMATCH" });
    for (const weights of [undefined, {}, { a: 1 }, { a: "../model.safetensors" }]) {
      await writeIndex({ weight_map: weights });
      await assert.rejects(readModelFolder(folder), { code: "SAFETENSORS_INVALID" });
    }
  });

  it("exports and reads whole and in several files, in float32 and rounded to bf16", async () => {
    const { model, parameters } = readGolden("untied");
    const rounded = parameters.slice();
    roundToBf16(rounded, new Uint16Array(rounded.length));
    assert.notDeepEqual(rounded, parameters);
    const bytes = { f32: 4 * parameters.length, bf16: 2 * parameters.length };
    for (const [dtype, mostFileBytes, files] of [
      ["f32", 5e9, 1],
      ["f32", bytes.f32 - 1, 2],
      ["f32", 5000, undefined],
      ["bf16", 5e9, 1],
      ["bf16", bytes.bf16 / 2, undefined],
    ] as const) {
      const out = join(folder, `${dtype}-${mostFileBytes}`);
      await writeModelFolder(out, { model, parameters: onePage(parameters) }, 0);
      const names = await exportFolder(out, { dtype, mostFileBytes });
      assert.deepEqual((await readdir(out)).sort(), names);
      const weights = names.filter((name) => name.endsWith(".safetensors"));
      if (files !== undefined) assert.equal(weights.length, files);
      assert.equal(names.includes("model.safetensors.index.json"), weights.length > 1);
      assert.deepEqual(await readModelFolder(out), { model, parameters: onePage(dtype === "f32" ? parameters : rounded) });
    }
  });

  it("reads a config with the bare word Infinity, as transformers 4 wrote it", async () => {
    const { model, parameters } = readGolden("tiny");
    await writeModelFolder(folder, { model, parameters: onePage(parameters) }, 0);
    const path = join(folder, "config.json");
    const config = await readFile(path, "utf8");
    await writeFile(path, config.replace(/^\{/, '{"time_step_limit": [0.0, Infinity],'));
    assert.deepEqual((await readModelFolder(folder)).parameters, onePage(parameters));
    await writeFile(path, config.replace(/^\{/, '{"time_step_limit": [NaN, Infinity],'));
    await assert.rejects(readModelFolder(folder), { code: "MODEL_UNSUPPORTED" });
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
