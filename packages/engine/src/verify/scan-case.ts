import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { SegueError, tensorToFloat32, type SafetensorsTensor } from "@segue/core";
import { readSafetensorsFile } from "../checkpoint-folder.js";

export interface ScanCaseShape {
  readonly lanes: number;
  readonly tokens: number;
  readonly heads: number;
  readonly headDim: number;
  readonly dState: number;
  readonly groups: number;
}

/** Names of the inputs, as the tensors of a folder are named. */
export const SCAN_INPUTS = ["x", "dt", "A", "B", "C", "D", "dt_bias", "initial_state"] as const;
export type ScanInput = (typeof SCAN_INPUTS)[number];

/**
 * Values per input: x [lanes, tokens, heads, headDim]; dt [lanes, tokens, heads], before bias and softplus; A < 0, D and dt_bias [heads];
 * B and C [lanes, tokens, groups, dState]; initial_state [lanes, heads, headDim, dState].
 */
export type ScanInputs = Readonly<Record<ScanInput, Float32Array>>;

export interface ScanResults {
  /** [lanes, tokens, heads, headDim] */
  readonly y: Float32Array;
  /** [lanes, heads, headDim, dState] */
  readonly finalState: Float32Array;
  /** Of sum(y * weightY) + sum(finalState * weightFinalState). */
  readonly gradients: ScanInputs;
}

/** One scan with its state carried in and out, and what has to come out. */
export interface ScanCase {
  readonly shape: ScanCaseShape;
  readonly inputs: ScanInputs;
  readonly weightY: Float32Array;
  readonly weightFinalState: Float32Array;
  readonly golden: ScanResults;
}

type Tensors = ReadonlyMap<string, SafetensorsTensor>;

/**
 * The scans of a folder whose only safetensors file has `0.x`, `0.dt`, ..., `0.y`, `0.final_state`, `0.weight_y`, `0.weight_final_state`,
 * `0.grad.x`, ... and the same for 1, 2, and so on.
 * @returns undefined for any other folder, such as one of a model
 * @throws SegueError VERIFY_FOLDER_INVALID
 */
export async function readScanCases(folder: string): Promise<ScanCase[] | undefined> {
  const [file, ...others] = await safetensorsFiles(folder);
  if (file === undefined || others.length > 0 || file.startsWith("model")) return undefined;
  try {
    const tensors = await readSafetensorsFile(join(folder, file));
    const cases: ScanCase[] = [];
    while (tensors.has(`${cases.length}.x`)) cases.push(scanCase(tensors, cases.length));
    return cases.length > 0 ? cases : undefined;
  } catch (cause) {
    if (!(cause instanceof SegueError)) throw cause;
    const message = `${folder} cannot be verified: ${cause.message}`;
    throw new SegueError("VERIFY_FOLDER_INVALID", message, { status: "INVALID_ARGUMENT", cause });
  }
}

/** None where there is no folder: whoever reads it as a model says so. */
async function safetensorsFiles(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => []);
  return names.filter((name) => name.endsWith(".safetensors"));
}

function scanCase(tensors: Tensors, index: number): ScanCase {
  const find = (name: string): SafetensorsTensor => {
    const tensor = tensors.get(`${index}.${name}`);
    if (!tensor) throw invalid(`it has no ${index}.${name}`);
    return tensor;
  };
  const values = (name: string, expected: readonly number[]): Float32Array => {
    const tensor = find(name);
    if (tensor.shape.join() === expected.join()) return tensorToFloat32(tensor);
    throw invalid(`${index}.${name} has shape [${tensor.shape.join(", ")}], not [${expected.join(", ")}]`);
  };
  const [lanes = 0, tokens = 0, heads = 0, headDim = 0] = find("x").shape;
  const [, , groups = 0, dState = 0] = find("B").shape;
  const shape: ScanCaseShape = { lanes, tokens, heads, headDim, dState, groups };
  if (Object.values(shape).some((size) => size < 1) || heads % groups !== 0) {
    throw invalid(`the sizes of ${index}.x and ${index}.B are no scan's, or its heads are not shared evenly by the groups`);
  }
  const state = [lanes, heads, headDim, dState];
  const shapes: Record<ScanInput, readonly number[]> = {
    ...{ x: [lanes, tokens, heads, headDim], dt: [lanes, tokens, heads], A: [heads], D: [heads], dt_bias: [heads] },
    ...{ B: [lanes, tokens, groups, dState], C: [lanes, tokens, groups, dState], initial_state: state },
  };
  const all = (prefix: string): ScanInputs =>
    Object.fromEntries(SCAN_INPUTS.map((name) => [name, values(prefix + name, shapes[name])])) as unknown as ScanInputs;
  const inputs = all("");
  if (inputs.A.some((a) => !(a < 0))) throw invalid(`${index}.A must be negative`);
  return {
    shape,
    inputs,
    weightY: values("weight_y", shapes.x),
    weightFinalState: values("weight_final_state", state),
    golden: { y: values("y", shapes.x), finalState: values("final_state", state), gradients: all("grad.") },
  };
}

function invalid(reason: string): SegueError {
  return new SegueError("GOLDEN_INVALID", reason);
}
