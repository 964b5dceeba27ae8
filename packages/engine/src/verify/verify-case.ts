import { access } from "node:fs/promises";
import { join } from "node:path";
import { randomStream, SegueError, type ModelSpec, type PagedFloats } from "@segue/core";
import { readModelFolder, readSafetensorsFile } from "../checkpoint-folder.js";
import type { SegmentBatch } from "../engine.js";
import { goldenCase, type GoldenValues } from "./golden.js";

/** A model, tokens to run it on, and what has to come out if somebody else computed that. */
export interface VerifyCase {
  readonly model: ModelSpec;
  /** Flat, in the order of the layout. */
  readonly parameters: PagedFloats;
  readonly batch: SegmentBatch;
  readonly golden?: GoldenValues | undefined;
}

/** Tokens for a folder without golden values. */
export interface RandomTokens {
  readonly seed: number;
  readonly lanes: number;
  /** Per lane; absent: {@link defaultTokens}. */
  readonly tokens?: number | undefined;
}

/** Parameters times tokens that the reference engine goes through in about two minutes. */
const REFERENCE_BUDGET = 3e9;
const MIN_TOKENS = 8;
/** One token in so many starts a document, and one in so many is masked. */
const TOKENS_PER_RESET = 40;
const TOKENS_PER_MASK = 8;

/**
 * Reads a model folder (Hugging Face's layout or that of state-spaces) and its `golden.safetensors`; without one, tokens are drawn.
 * @throws SegueError VERIFY_FOLDER_INVALID
 */
export async function readVerifyCase(folder: string, random: RandomTokens): Promise<VerifyCase> {
  try {
    const { model, parameters } = await readModelFolder(folder);
    const path = join(folder, "golden.safetensors");
    if (await isMissing(path)) {
      const tokens = random.tokens ?? defaultTokens(model, parameters.length, random.lanes);
      return { model, parameters, batch: randomBatch(model, random.seed, random.lanes, tokens) };
    }
    return { model, parameters, ...goldenCase(model, await readSafetensorsFile(path)) };
  } catch (cause) {
    if (!(cause instanceof SegueError || isSystemError(cause))) throw cause;
    const violations = cause instanceof SegueError ? cause.violations : undefined;
    throw new SegueError("VERIFY_FOLDER_INVALID", `${folder} cannot be verified: ${cause.message}`, {
      status: "INVALID_ARGUMENT",
      ...(violations ? { violations } : {}),
      cause,
    });
  }
}

/** Enough tokens per lane to go from one chunk of the scan into the next, or what the slow reference can do for a large model. */
export function defaultTokens(model: ModelSpec, parameters: number, lanes: number): number {
  const affordable = Math.floor(REFERENCE_BUDGET / parameters / lanes);
  return Math.max(MIN_TOKENS, Math.min(affordable, Math.ceil(1.5 * model.chunk)));
}

/** Random tokens and labels, some of them masked, with documents that start anywhere. */
export function randomBatch(model: ModelSpec, seed: number, lanes: number, tokens: number): SegmentBatch {
  const rows = lanes * tokens;
  const draw = (label: string): (() => number) => {
    const random = randomStream(seed, "verify", label);
    return () => random.below(model.vocab);
  };
  const oneIn = (label: string, count: number): (() => boolean) => {
    const random = randomStream(seed, "verify", label);
    return () => random.below(count) === 0;
  };
  const masked = oneIn("weights", TOKENS_PER_MASK);
  const reset = oneIn("resets", TOKENS_PER_RESET);
  return {
    lanes,
    tokens,
    tokens_BT: Int32Array.from({ length: rows }, draw("tokens")),
    labels_BT: Int32Array.from({ length: rows }, draw("labels")),
    weights_BT: Float32Array.from({ length: rows }, () => (masked() ? 0 : 1)),
    resets_BT: Uint8Array.from({ length: rows }, () => (reset() ? 1 : 0)),
  };
}

async function isMissing(path: string): Promise<boolean> {
  try {
    await access(path);
    return false;
  } catch (error) {
    if (isSystemError(error) && error.code === "ENOENT") return true;
    throw error;
  }
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).errno === "number";
}
