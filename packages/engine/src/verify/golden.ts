import { flattenParameters, SegueError, tensorToFloat32, type ModelSpec, type SafetensorsTensor } from "@segue/core";
import type { SegmentBatch } from "../engine.js";

/** What another implementation computed for the tokens of a case, starting from zero states. */
export interface GoldenValues {
  /** Mean cross-entropy. */
  readonly loss: number;
  /** Cross-entropy of every label, [lanes, tokens]. */
  readonly losses_BT: Float64Array;
  /** [lanes, vocab] */
  readonly lastLogits_BV: Float32Array;
  /** Of the mean cross-entropy, flat in the order of the layout. */
  readonly gradient: Float32Array;
}

type Tensors = ReadonlyMap<string, SafetensorsTensor>;

const GRADIENT = "grad.";

/**
 * The tokens and results of a `golden.safetensors`: `input_ids` and `targets` [lanes, tokens], `logits` [lanes, tokens, vocab], `loss`,
 * and `grad.<parameter>` for every parameter.
 * @throws SegueError GOLDEN_INVALID, and CHECKPOINT_MISMATCH when the gradients do not fit the parameters
 */
export function goldenCase(model: ModelSpec, tensors: Tensors): { batch: SegmentBatch; golden: GoldenValues } {
  const { shape } = find(tensors, "input_ids");
  const [lanes = 0, tokens = 0] = shape;
  if (shape.length !== 2 || lanes === 0 || tokens === 0) throw invalid("input_ids must have the shape [lanes, tokens]");
  const tokens_BT = tokenIds(find(tensors, "input_ids", [lanes, tokens]), model.vocab);
  const labels_BT = tokenIds(find(tensors, "targets", [lanes, tokens]), model.vocab);
  const logits = tensorToFloat32(find(tensors, "logits", [lanes, tokens, model.vocab]));
  const logitsOf = (row: number): Float32Array => logits.subarray(row * model.vocab, (row + 1) * model.vocab);

  const lastLogits_BV = new Float32Array(lanes * model.vocab);
  for (let lane = 0; lane < lanes; lane++) lastLogits_BV.set(logitsOf((lane + 1) * tokens - 1), lane * model.vocab);
  const losses_BT = Float64Array.from(labels_BT, (label, row) => crossEntropy(logitsOf(row), label));
  const loss = tensorToFloat32(find(tensors, "loss"))[0];
  if (loss === undefined) throw invalid("loss is empty");
  return {
    batch: { lanes, tokens, tokens_BT, labels_BT },
    golden: { loss, losses_BT, lastLogits_BV, gradient: flattenParameters(model, gradientsOf(tensors)) },
  };
}

/** log(sum exp(logits)) - logits[label], in float64 */
function crossEntropy(logits_V: Float32Array, label: number): number {
  const largest = logits_V.reduce((a, b) => Math.max(a, b));
  const sum = logits_V.reduce((total, logit) => total + Math.exp(logit - largest), 0);
  return largest + Math.log(sum) - (logits_V[label] as number);
}

function gradientsOf(tensors: Tensors): Map<string, SafetensorsTensor> {
  const gradients = new Map<string, SafetensorsTensor>();
  for (const [name, tensor] of tensors) {
    if (name.startsWith(GRADIENT)) gradients.set(name.slice(GRADIENT.length), tensor);
  }
  return gradients;
}

function find(tensors: Tensors, name: string, shape?: readonly number[]): SafetensorsTensor {
  const tensor = tensors.get(name);
  if (!tensor) throw invalid(`it has no ${name}`);
  if (shape && tensor.shape.join() !== shape.join()) {
    throw invalid(`${name} has shape [${tensor.shape.join(", ")}], not [${shape.join(", ")}]`);
  }
  return tensor;
}

function tokenIds({ name, dtype, data }: SafetensorsTensor, vocab: number): Int32Array {
  if (dtype !== "I32" && dtype !== "I64") throw invalid(`${name} holds ${dtype}, not whole numbers`);
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  const ids = Int32Array.from({ length: data.length / (dtype === "I32" ? 4 : 8) }, (_, i) =>
    dtype === "I32" ? view.getInt32(4 * i, true) : Number(view.getBigInt64(8 * i, true)),
  );
  const wrong = ids.find((id) => id < 0 || id >= vocab);
  if (wrong !== undefined) throw invalid(`${name} holds ${wrong}, the vocabulary has ${vocab}`);
  return ids;
}

function invalid(reason: string): SegueError {
  return new SegueError("GOLDEN_INVALID", `golden.safetensors: ${reason}`);
}
