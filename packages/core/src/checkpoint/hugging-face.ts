import { SegueError, type Violation } from "../errors.js";
import { modelWidths, parameterLayout } from "../model/sizes.js";
import { DEFAULT_SPEC } from "../spec/defaults.js";
import type { ModelSpec } from "../spec/job-spec.js";
import { tensorToFloat32, type SafetensorsEntry, type SafetensorsTensor } from "./safetensors.js";

/** `pad_vocab_size_multiple` of state-spaces' MambaConfig where a config does not say. */
const STATE_SPACES_PAD = 8;
/** `n_groups` of transformers' Mamba2Config where a config does not say. */
const TRANSFORMERS_GROUPS = 8;

/** Element types of exported weights, by their names in safetensors and in `config.json`. */
export const EXPORT_DTYPES = { f32: { stored: "F32", config: "float32" }, bf16: { stored: "BF16", config: "bfloat16" } } as const;

export type ExportDtype = keyof typeof EXPORT_DTYPES;

/**
 * The `config.json` of a Hugging Face `Mamba2ForCausalLM` folder, as a JSON value. Time steps have no limit, which every version of
 * transformers takes for granted; there is no way to write it down that all of them read.
 */
export function configToHuggingFace(model: ModelSpec, eosId: number, dtype: ExportDtype = "f32"): Record<string, unknown> {
  return {
    architectures: ["Mamba2ForCausalLM"],
    model_type: "mamba2",
    bos_token_id: eosId,
    eos_token_id: eosId,
    pad_token_id: eosId,
    chunk_size: model.chunk,
    conv_kernel: model.dConv,
    dtype: EXPORT_DTYPES[dtype].config,
    expand: model.expand,
    head_dim: model.headDim,
    hidden_act: "silu",
    hidden_size: model.dModel,
    layer_norm_epsilon: model.rmsEps,
    n_groups: model.groups,
    num_heads: modelWidths(model).heads,
    num_hidden_layers: model.layers,
    residual_in_fp32: true,
    rms_norm: true,
    state_size: model.dState,
    tie_word_embeddings: model.tieEmbeddings,
    use_bias: false,
    use_conv_bias: true,
    vocab_size: model.vocab,
  };
}

/**
 * Reads the `config.json` of a Mamba-2 model: Hugging Face's keys, or those of state-spaces/mamba (`d_model`, `n_layer`, `ssm_cfg`).
 * @throws SegueError MODEL_UNSUPPORTED with every setting that this implementation of Mamba-2 does not have
 */
export function configFromHuggingFace(config: unknown): ModelSpec {
  if (typeof config !== "object" || config === null) throw unsupported([{ field: "", description: "is not a JSON object" }]);
  const json = config as Record<string, unknown>;
  return "hidden_size" in json ? fromTransformers(json) : fromStateSpaces(json);
}

function fromTransformers(json: Record<string, unknown>): ModelSpec {
  const reader = configReader(json);
  reader.expect("model_type", "mamba2");
  reader.expect("hidden_act", "silu");
  reader.expect("use_bias", false);
  reader.expect("use_conv_bias", true);
  reader.expect("rms_norm", true);
  reader.expect("norm_before_gate", false);
  reader.expect("conv_kernel", 4);
  if (!isUnlimited(json["time_step_limit"])) reader.refuse("time_step_limit", "must be [0, Infinity]");
  const model: ModelSpec = {
    layers: reader.size("num_hidden_layers"),
    dModel: reader.size("hidden_size"),
    dState: reader.size("state_size"),
    headDim: reader.size("head_dim"),
    expand: reader.size("expand", 2),
    dConv: 4,
    groups: reader.size("n_groups", TRANSFORMERS_GROUPS),
    chunk: reader.size("chunk_size", DEFAULT_SPEC.model.chunk),
    vocab: reader.size("vocab_size"),
    padVocabMultiple: 1,
    tieEmbeddings: json["tie_word_embeddings"] === true,
    rmsEps: reader.positive("layer_norm_epsilon", DEFAULT_SPEC.model.rmsEps),
  };
  const { heads } = modelWidths(model);
  if (heads !== reader.size("num_heads", heads)) reader.refuse("num_heads", `must be expand * hidden_size / head_dim = ${heads}`);
  if (heads % model.groups !== 0) reader.refuse("n_groups", `must divide the number of heads, ${heads}, but is ${model.groups}`);
  reader.finish();
  return model;
}

function fromStateSpaces(json: Record<string, unknown>): ModelSpec {
  const top = configReader(json);
  const inner = typeof json["ssm_cfg"] === "object" && json["ssm_cfg"] !== null ? (json["ssm_cfg"] as Record<string, unknown>) : {};
  const ssm = configReader({ layer: "Mamba1", ...inner });
  ssm.expect("layer", "Mamba2");
  ssm.expect("d_conv", 4);
  ssm.expect("norm_before_gate", false);
  top.expect("rms_norm", true);
  top.expect("d_intermediate", 0);
  if (Array.isArray(json["attn_layer_idx"]) && json["attn_layer_idx"].length > 0) top.refuse("attn_layer_idx", "must be empty");
  const multiple = top.size("pad_vocab_size_multiple", STATE_SPACES_PAD);
  const model: ModelSpec = {
    layers: top.size("n_layer"),
    dModel: top.size("d_model"),
    dState: ssm.size("d_state", 128),
    headDim: ssm.size("headdim", 64),
    expand: ssm.size("expand", 2),
    dConv: 4,
    groups: ssm.size("ngroups", 1),
    chunk: ssm.size("chunk_size", DEFAULT_SPEC.model.chunk),
    vocab: Math.ceil(top.size("vocab_size") / multiple) * multiple,
    padVocabMultiple: multiple,
    tieEmbeddings: json["tie_embeddings"] !== false,
    rmsEps: DEFAULT_SPEC.model.rmsEps,
  };
  const { heads } = modelWidths(model);
  if (heads % model.groups !== 0) ssm.refuse("ngroups", `must divide the number of heads, ${heads}, but is ${model.groups}`);
  const violations = [...top.violations, ...ssm.violations];
  if (violations.length > 0) throw unsupported(violations);
  return model;
}

/**
 * The tensors of a checkpoint in the order of the flat parameter vector, and where each belongs. state-spaces' name of the embedding is
 * accepted, a tied head's copy ignored.
 * @throws SegueError CHECKPOINT_MISMATCH naming every tensor that is missing, superfluous, there twice or of another shape
 */
export function placedParameters<Tensor extends SafetensorsEntry>(
  model: ModelSpec,
  tensors: Iterable<Tensor>,
): { readonly tensor: Tensor; readonly offset: number }[] {
  const problems: Violation[] = [];
  const byName = new Map<string, Tensor>();
  for (const tensor of tensors) {
    const name = tensor.name.replace(/^backbone\.embedding\./, "backbone.embeddings.");
    if (byName.has(name)) problems.push({ field: name, description: "is there twice" });
    byName.set(name, tensor);
  }
  const placed: { tensor: Tensor; offset: number }[] = [];
  for (const { name, shape, offset } of parameterLayout(model).entries) {
    const tensor = byName.get(name);
    byName.delete(name);
    if (!tensor) problems.push({ field: name, description: "is missing" });
    else if (tensor.shape.join() !== shape.join()) {
      problems.push({ field: name, description: `has shape [${tensor.shape.join(", ")}], the config needs [${shape.join(", ")}]` });
    } else placed.push({ tensor, offset });
  }
  if (model.tieEmbeddings) byName.delete("lm_head.weight");
  for (const name of byName.keys()) problems.push({ field: name, description: "is no parameter of this model" });
  if (problems.length === 0) return placed;
  const lines = problems.slice(0, 20).map(({ field, description }) => `  ${field} ${description}`);
  throw new SegueError("CHECKPOINT_MISMATCH", `The tensors do not fit the model's config:\n${lines.join("\n")}`, {
    violations: problems,
  });
}

/** The flat parameter vector of a model that fits into one array; see {@link placedParameters}. */
export function flattenParameters(model: ModelSpec, tensors: ReadonlyMap<string, SafetensorsTensor>): Float32Array {
  const flat = new Float32Array(parameterLayout(model).size);
  const named = [...tensors].map(([name, tensor]) => ({ ...tensor, name }));
  for (const { tensor, offset } of placedParameters(model, named)) flat.set(tensorToFloat32(tensor), offset);
  return flat;
}

function configReader(json: Record<string, unknown>) {
  const violations: Violation[] = [];
  const refuse = (field: string, description: string): void => void violations.push({ field, description });
  return {
    violations,
    refuse,
    /** A key that, when present, must have this value. */
    expect(key: string, value: unknown): void {
      if (key in json && json[key] !== value) refuse(key, `must be ${JSON.stringify(value)}, but is ${JSON.stringify(json[key])}`);
    },
    size(key: string, fallback?: number): number {
      const value = json[key] ?? fallback;
      if (Number.isSafeInteger(value) && (value as number) > 0) return value as number;
      refuse(key, "must be a positive whole number");
      return 1;
    },
    positive(key: string, fallback: number): number {
      const value = json[key] ?? fallback;
      if (typeof value === "number" && value > 0 && value < Infinity) return value;
      refuse(key, "must be a positive number");
      return fallback;
    },
    finish(): void {
      if (violations.length > 0) throw unsupported(violations);
    },
  };
}

/** As {@link parsePythonJson} reads it; other readers turn the bare word to null. */
function isUnlimited(limit: unknown): boolean {
  if (limit === undefined || limit === null) return true;
  if (!Array.isArray(limit) || limit.length !== 2) return false;
  const [low, high] = limit as unknown[];
  return low === 0 && (high === null || high === Infinity);
}

function unsupported(violations: readonly Violation[]): SegueError {
  const lines = violations.map(({ field, description }) => `  ${field} ${description}`);
  return new SegueError("MODEL_UNSUPPORTED", `This is no Mamba-2 that can be loaded:\n${lines.join("\n")}`, { violations });
}
