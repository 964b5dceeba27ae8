import assert from "node:assert/strict";
import {
  configFromHuggingFace,
  configToHuggingFace,
  decodeSafetensors,
  encodeSafetensors,
  flattenParameters,
  MODEL_PRESETS,
  parameterLayout,
  SegueError,
  tensorToFloat32,
  validateJobSpec,
  type SafetensorsTensor,
} from "@segue/core";

const { model } = validateJobSpec({
  model: { layers: 2, dModel: 32, headDim: 16, dState: 16, groups: 2, tieEmbeddings: false },
  data: { passkey: {} },
  train: { steps: 1 },
}).spec;

function file(header: unknown, dataBytes: number): Uint8Array {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

describe("safetensors", () => {
  const tensors: SafetensorsTensor[] = [
    { name: "a", dtype: "U8", shape: [3], data: Uint8Array.of(1, 2, 3) },
    { name: "b", dtype: "F32", shape: [1, 2], data: new Uint8Array(Float32Array.of(1.5, -Infinity).buffer) },
    { name: "empty", dtype: "I64", shape: [0, 4], data: new Uint8Array(0) },
    { name: "scalar", dtype: "F64", shape: [], data: new Uint8Array(Float64Array.of(Math.PI).buffer) },
    { name: "half", dtype: "BF16", shape: [2], data: Uint8Array.of(0x80, 0x3f, 0x20, 0xc0) },
  ];

  it("gives back what was written, data at a multiple of 8 bytes", () => {
    const bytes = encodeSafetensors(tensors, { format: "pt" });
    assert.equal(new DataView(bytes.buffer).getBigUint64(0, true) % 8n, 0n);
    const read = decodeSafetensors(bytes);
    assert.deepEqual(
      [...read.values()].map((tensor) => ({ ...tensor, data: [...tensor.data] })),
      tensors.map((tensor) => ({ ...tensor, data: [...tensor.data] })),
    );
    assert.deepEqual([...tensorToFloat32(read.get("b")!)], [1.5, -Infinity]);
    assert.deepEqual([...tensorToFloat32(read.get("scalar")!)], [Math.fround(Math.PI)]);
    assert.deepEqual([...tensorToFloat32(read.get("half")!)], [1, -2.5]);
    assert.throws(() => tensorToFloat32(read.get("a")!), /U8, not floats/);
  });

  it("reads every kind of half-precision number exactly", () => {
    const half = (...bits: number[]): number[] => {
      const data = new Uint8Array(Uint16Array.from(bits).buffer);
      return [...tensorToFloat32({ name: "half", dtype: "F16", shape: [bits.length], data })];
    };
    assert.deepEqual(half(0x3c00, 0xc100, 0x3555, 0x7bff), [1, -2.5, 0.333251953125, 65504]);
    assert.deepEqual(half(0x0001, 0x83ff, 0x0400), [2 ** -24, -1023 * 2 ** -24, 2 ** -14]);
    assert.deepEqual(half(0x0000, 0x8000, 0x7c00, 0xfc00, 0x7e00), [0, -0, Infinity, -Infinity, NaN]);
  });

  const f32 = (begin: number, end: number, shape = [(end - begin) / 4]) => ({ dtype: "F32", shape, data_offsets: [begin, end] });
  const broken: [string, Uint8Array, RegExp][] = [
    ["an empty file", new Uint8Array(3), /shorter than 8/],
    ["a header longer than the file", file("{}", 0).fill(0x7f, 0, 3), /claims/],
    ["an absurd header length", new Uint8Array(8).fill(0xff), /claims/],
    ["a header that is not JSON", file("{", 0), /not JSON/],
    ["a header that is a list", file([], 0), /not a JSON object/],
    ["an unknown dtype", file({ a: { dtype: "F8", shape: [4], data_offsets: [0, 4] } }, 4), /unknown dtype "F8"/],
    ["a negative shape", file({ a: f32(0, 4, [-1]) }, 4), /no proper shape/],
    ["a size that disagrees with the shape", file({ a: f32(0, 4, [2]) }, 4), /covers 4 bytes, F32 \[2\] needs 8/],
    ["missing offsets", file({ a: { dtype: "F32", shape: [1] } }, 4), /data_offsets/],
    ["a gap", file({ a: f32(0, 4), b: f32(8, 12) }, 12), /b starts at byte 8, 4 was expected/],
    ["an overlap", file({ a: f32(0, 8), b: f32(4, 12) }, 12), /b starts at byte 4, 8 was expected/],
    ["missing data", file({ a: f32(0, 8) }, 4), /need 8 bytes of data, 4 follow/],
    ["data nobody owns", file({ a: f32(0, 8) }, 12), /need 8 bytes of data, 12 follow/],
  ];
  for (const [what, bytes, reason] of broken) {
    it(`refuses ${what}`, () => {
      assert.throws(
        () => decodeSafetensors(bytes),
        (error) => error instanceof SegueError && error.code === "SAFETENSORS_INVALID" && reason.test(error.message),
      );
    });
  }
});

describe("Hugging Face folder", () => {
  it("round-trips the model's sizes", () => {
    assert.deepEqual(configFromHuggingFace(JSON.parse(JSON.stringify(configToHuggingFace(model, 0)))), {
      ...model,
      padVocabMultiple: 1,
    });
  });

  it("reads the config of a state-spaces checkpoint", () => {
    const config = {
      d_model: 768,
      n_layer: 24,
      vocab_size: 50277,
      ssm_cfg: { layer: "Mamba2" },
      rms_norm: true,
      pad_vocab_size_multiple: 16,
    };
    const read = configFromHuggingFace(config);
    assert.equal(parameterLayout(read).size, 128_989_632);
    assert.deepEqual([read.vocab, read.padVocabMultiple, read.tieEmbeddings], [50_288, 16, true]);
    // Padded to a multiple of 8 where the config does not say, as MambaConfig does.
    assert.equal(configFromHuggingFace({ ...config, pad_vocab_size_multiple: undefined }).vocab, 50_280);
    assert.equal(configFromHuggingFace({ ...config, tie_embeddings: false }).tieEmbeddings, false);
    const refused = (change: object, reason: RegExp): void =>
      assert.throws(() => configFromHuggingFace({ ...config, ...change }), reason);
    refused({ ssm_cfg: {} }, /layer must be "Mamba2"/);
    // 24 heads.
    assert.equal(configFromHuggingFace({ ...config, ssm_cfg: { layer: "Mamba2", ngroups: 8 } }).groups, 8);
    refused({ ssm_cfg: { layer: "Mamba2", ngroups: 5 } }, /ngroups must divide the number of heads, 24, but is 5/);
    refused({ attn_layer_idx: [9, 18] }, /attn_layer_idx must be empty/);
  });

  it("gives every public model's sizes from its state-spaces config and from its Hugging Face config", () => {
    const parameters = {
      "130m": 128_989_632,
      "370m": 368_346_624,
      "780m": 780_161_280,
      "1.3b": 1_343_757_312,
      "2.7b": 2_702_599_680,
    };
    for (const [size, expected] of Object.entries(parameters)) {
      const { layers, dModel } = MODEL_PRESETS[`mamba2-${size}`]!;
      const read = configFromHuggingFace({
        d_model: dModel,
        n_layer: layers,
        d_intermediate: 0,
        vocab_size: 50277,
        ssm_cfg: { layer: "Mamba2" },
        attn_layer_idx: [],
        attn_cfg: {},
        ...{ rms_norm: true, residual_in_fp32: true, fused_add_norm: true, pad_vocab_size_multiple: 16, tie_embeddings: true },
      });
      const preset = { preset: `mamba2-${size}`, vocab: 50_288 };
      const { spec } = validateJobSpec({ model: preset, data: { passkey: {} }, train: { steps: 1 } });
      assert.deepEqual({ ...read, preset: preset.preset }, spec.model, size);
      assert.equal(parameterLayout(read).size, expected, size);
      assert.deepEqual(configFromHuggingFace(configToHuggingFace(read, 0)), { ...read, padVocabMultiple: 1 }, size);
    }
  });

  it("refuses models that compute something else, all reasons at once", () => {
    const config = {
      ...configToHuggingFace(model, 0),
      model_type: "mamba",
      use_bias: true,
      time_step_limit: [0.1, 1],
      layer_norm_epsilon: Infinity,
      num_heads: 7,
      vocab_size: "x",
    };
    assert.throws(
      () => configFromHuggingFace(config),
      (error) =>
        error instanceof SegueError &&
        error.code === "MODEL_UNSUPPORTED" &&
        error.violations?.map(({ field }) => field).join() ===
          "model_type,use_bias,time_step_limit,vocab_size,layer_norm_epsilon,num_heads",
    );
    assert.throws(() => configFromHuggingFace(null), /not a JSON object/);
    assert.throws(
      () => configFromHuggingFace({ ...configToHuggingFace(model, 0), n_groups: 3 }),
      /n_groups must divide the number of/,
    );
    // Mamba2Config has eight groups where a config does not say; this model has four heads.
    assert.throws(() => configFromHuggingFace({ ...configToHuggingFace(model, 0), n_groups: undefined }), /4, but is 8/);
  });

  it("takes time steps without limits for the default, however they are written", () => {
    for (const limit of [undefined, null, [0, Infinity], [0, null]]) {
      assert.equal(configFromHuggingFace({ ...configToHuggingFace(model, 0), time_step_limit: limit }).dModel, model.dModel);
    }
    for (const limit of [[0.1, Infinity], [0, 1], [0], "none"]) {
      assert.throws(() => configFromHuggingFace({ ...configToHuggingFace(model, 0), time_step_limit: limit }), /time_step_limit/);
    }
  });

  it("brings tensors of either naming into the flat order and names what does not fit", () => {
    const layout = parameterLayout(model);
    const flat = Float32Array.from({ length: layout.size }, (_, i) => i);
    const tensors = layout.entries.map(({ name, shape, offset, size }): SafetensorsTensor => ({
      name: name.replace("embeddings", "embedding"),
      dtype: "F32",
      shape,
      data: new Uint8Array(flat.buffer, 4 * offset, 4 * size),
    }));
    const byName = decodeSafetensors(encodeSafetensors(tensors.reverse()));
    assert.deepEqual(flattenParameters(model, byName), flat);
    assert.deepEqual(flattenParameters({ ...model, tieEmbeddings: true }, byName), flat.subarray(0, -model.vocab * model.dModel));
    byName.delete("backbone.norm_f.weight");
    byName.set("extra", tensors[0]!);
    assert.throws(
      () => flattenParameters({ ...model, dState: 8 }, byName),
      /in_proj.weight has shape[\s\S]*norm_f.weight is missing[\s\S]*extra is no parameter/,
    );
  });
});
