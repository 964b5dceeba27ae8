import type { BufferKind } from "../devices/device.js";

const LINE_FLOATS = 16;

/** The rounded copy of a float32 vector begins where rows of it may be read in whole vectors. */
export function rounded(length: number): number {
  return Math.ceil(length / LINE_FLOATS) * LINE_FLOATS;
}

/** Floats of GPU memory that a buffer of each kind takes: bf16 is half as large, and what is mirrored has a bf16 copy behind it. */
export function cudaBufferFloats(precision: "f32" | "bf16"): (length: number, kind: BufferKind) => number {
  return (length, kind) => {
    if (precision === "f32" || kind === "float") return length;
    const half = Math.ceil(length / 2);
    return kind === "activation" ? half : rounded(length) + half;
  };
}
