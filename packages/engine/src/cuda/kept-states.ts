import type { ScanShape } from "../devices/device.js";

/** Tokens per chunk: `kChunk` in `cuda/chunks.cuh`. What the model calls its chunk is another device's affair. */
export const CHUNK = 64;
export const TILE = 16;
/** The gradients of B and C of a chunk fill the registers. */
const MOST_STATE = 128;

/** Whether heads can be cut into the tiles of tensor cores. */
export function suitsTiles({ headDim, dState }: Pick<ScanShape, "headDim" | "dState">): boolean {
  return headDim % TILE === 0 && dState % TILE === 0 && dState <= MOST_STATE;
}

/** bf16 numbers of the states before every chunk; 0 for shapes that are scanned token by token. */
export function keptStateFloats(shape: ScanShape, lanes: number, tokens: number): number {
  const { heads, headDim, dState } = shape;
  return suitsTiles(shape) ? lanes * Math.ceil(tokens / CHUNK) * heads * headDim * dState : 0;
}
