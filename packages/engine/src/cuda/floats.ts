import type { Address } from "./driver.js";

/**
 * Floats on the GPU, as float32, as bf16, or as both: a float32 vector may have a rounded copy beside it, which matrix products read.
 * Absent memory is 0.
 */
export interface CudaFloats {
  readonly f32: Address;
  readonly bf16: Address;
  readonly length: number;
}

export interface CudaInts {
  readonly address: Address;
  readonly length: number;
}

export function sliceOf({ f32, bf16 }: CudaFloats, offset: number, length: number): CudaFloats {
  return { f32: f32 && f32 + 4 * offset, bf16: bf16 && bf16 + 2 * offset, length };
}
