import { join } from "node:path";
import { existsSync } from "node:fs";
import {
  flattenParameters,
  laneStateFloats,
  SegueError,
  tensorToFloat32,
  type ModelSpec,
  type SafetensorsTensor,
} from "@segue/core";
import { readSafetensorsFile } from "../checkpoint-folder.js";
import type { SegmentBatch } from "../engine.js";

/** A batch cut into segments anywhere, states carried from each to the next, and what has to come out (docs/reference/conformance.md). */
export interface CarriedCase {
  readonly batch: SegmentBatch;
  /** Tokens a lane of each segment; 0: an empty one, which changes nothing. */
  readonly segments: readonly number[];
  /** [lanes, laneStateFloats] */
  readonly initialStates: Float32Array;
  readonly golden: {
    /** Cross-entropy of every label, [lanes, tokens]. */
    readonly losses_BT: Float32Array;
    /** After each segment, [lanes, laneStateFloats]. */
    readonly states: readonly Float32Array[];
    /** Of the weighted mean, flat; no gradient flows from a segment into the one before. */
    readonly gradient: Float32Array;
    /** The same, flowing through all segments. */
    readonly fullGradient: Float32Array;
  };
}

type Tensors = ReadonlyMap<string, SafetensorsTensor>;

const FILE = "carried.safetensors";

/**
 * The cases of a model folder's `carried.safetensors`; none where there is no such file.
 * @throws SegueError VERIFY_FOLDER_INVALID
 */
export async function readCarriedCases(folder: string, model: ModelSpec): Promise<CarriedCase[]> {
  const path = join(folder, FILE);
  if (!existsSync(path)) return [];
  try {
    const tensors = await readSafetensorsFile(path);
    const cases: CarriedCase[] = [];
    while (tensors.has(`${cases.length}.input_ids`)) cases.push(carriedCase(model, tensors, `${cases.length}.`));
    if (cases.length === 0) throw invalid("it has no 0.input_ids");
    return cases;
  } catch (cause) {
    if (!(cause instanceof SegueError)) throw cause;
    const message = `${folder} cannot be verified: ${cause.message}`;
    throw new SegueError("VERIFY_FOLDER_INVALID", message, { status: "INVALID_ARGUMENT", cause });
  }
}

function carriedCase(model: ModelSpec, tensors: Tensors, prefix: string): CarriedCase {
  const find = (name: string, shape?: readonly number[]): SafetensorsTensor => {
    const tensor = tensors.get(prefix + name);
    if (!tensor) throw invalid(`it has no ${prefix}${name}`);
    if (!shape || tensor.shape.join() === shape.join()) return tensor;
    throw invalid(`${prefix}${name} has shape [${tensor.shape.join(", ")}], not [${shape.join(", ")}]`);
  };
  const floats = (name: string, shape: readonly number[]): Float32Array => tensorToFloat32(find(name, shape));
  const [lanes = 0, tokens = 0] = find("input_ids").shape;
  const size = [lanes, tokens];
  const segments = [...wholeNumbers(find("segments"))];
  if (segments.some((length) => length < 0) || segments.reduce((sum, length) => sum + length, 0) !== tokens) {
    throw invalid(`${prefix}segments does not add up to ${tokens} tokens`);
  }
  const laneFloats = laneStateFloats(model);
  const states = floats("states", [segments.length, lanes, laneFloats]);
  const gradientOf = (kind: string): Float32Array => {
    const start = `${prefix}${kind}.`;
    const own = [...tensors].flatMap(([name, tensor]) =>
      name.startsWith(start) ? [[name.slice(start.length), tensor] as const] : [],
    );
    return flattenParameters(model, new Map(own));
  };
  return {
    batch: {
      ...{ lanes, tokens, tokens_BT: ids(find("input_ids"), model), labels_BT: ids(find("targets", size), model) },
      ...{ weights_BT: floats("weights", size), resets_BT: Uint8Array.from(wholeNumbers(find("resets", size))) },
    },
    segments,
    initialStates: floats("initial_state", [lanes, laneFloats]),
    golden: {
      losses_BT: floats("token_losses", size),
      states: segments.map((_, index) => states.subarray(index * lanes * laneFloats, (index + 1) * lanes * laneFloats)),
      gradient: gradientOf("grad"),
      fullGradient: gradientOf("full_grad"),
    },
  };
}

function ids(tensor: SafetensorsTensor, { vocab }: ModelSpec): Int32Array {
  const values = wholeNumbers(tensor);
  const wrong = values.find((id) => id < 0 || id >= vocab);
  if (wrong !== undefined) throw invalid(`${tensor.name} holds ${wrong}, the vocabulary has ${vocab}`);
  return values;
}

function wholeNumbers({ name, dtype, data }: SafetensorsTensor): Int32Array {
  if (dtype !== "I32") throw invalid(`${name} holds ${dtype}, not I32`);
  return new Int32Array(Uint8Array.from(data).buffer);
}

function invalid(reason: string): SegueError {
  return new SegueError("GOLDEN_INVALID", `${FILE}: ${reason}`);
}
