export type TensorDtype = "f32" | "bf16" | "u8" | "i32";

/** A tensor in memory; `data` is little-endian and must not change once it is published. */
export interface Tensor {
  readonly dtype: TensorDtype;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** A tensor whose bytes are a file, streamed from disk when it is pulled. */
export interface FileTensor {
  readonly dtype: TensorDtype;
  readonly shape: readonly number[];
  readonly path: string;
}

/** A tensor whose bytes are these ranges of files, one after the other; streamed from disk when it is pulled. */
export interface FileRangesTensor {
  readonly dtype: TensorDtype;
  readonly shape: readonly number[];
  readonly ranges: readonly FileRange[];
}

export interface FileRange {
  readonly path: string;
  readonly offset: number;
  readonly length: number;
}

/** Bytes per message. Smaller ones cost speed, much bigger ones stall the event loop. */
export const CHUNK_BYTES = 2 ** 20;

const ITEM_BYTES = { f32: 4, bf16: 2, u8: 1, i32: 4 } as const satisfies Record<TensorDtype, number>;

export function isTensorDtype(dtype: string): dtype is TensorDtype {
  return Object.hasOwn(ITEM_BYTES, dtype);
}

/** Bytes of a dense tensor. */
export function tensorBytes(dtype: TensorDtype, shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, ITEM_BYTES[dtype]);
}
