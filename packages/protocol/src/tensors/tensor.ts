export type TensorDtype = "f32" | "bf16" | "u8" | "i32";

/** A tensor in memory; `data` is little-endian and must not change once it is published. */
export interface Tensor {
  readonly dtype: TensorDtype;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** A tensor in memory that may be too long for one array: its bytes are those of the pages, one after the other. */
export interface PagedTensor {
  readonly dtype: TensorDtype;
  readonly shape: readonly number[];
  readonly pages: readonly Uint8Array[];
}

export type MemoryTensor = Tensor | PagedTensor;

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

/** Bytes of a tensor in memory. */
export function memoryBytes(tensor: MemoryTensor): number {
  return pagesOf(tensor).reduce((sum, { byteLength }) => sum + byteLength, 0);
}

/** A range of a tensor's bytes: a view where it lies in one page, else a copy. @throws RangeError past the end */
export function bytesAt(tensor: MemoryTensor, offset: number, length: number): Uint8Array {
  let begin = 0;
  let copy: Uint8Array | undefined;
  let copied = 0;
  for (const page of pagesOf(tensor)) {
    const at = offset + copied - begin;
    begin += page.byteLength;
    if (at >= page.byteLength) continue;
    const part = page.subarray(at, at + length - copied);
    if (part.byteLength === length) return part;
    copy ??= new Uint8Array(length);
    copy.set(part, copied);
    copied += part.byteLength;
    if (copied === length) return copy;
  }
  if (length === 0) return new Uint8Array(0);
  throw new RangeError(`bytes ${offset} to ${offset + length} of ${begin}`);
}

function pagesOf(tensor: MemoryTensor): readonly Uint8Array[] {
  return "pages" in tensor ? tensor.pages : [tensor.data];
}

/** Bytes of a dense tensor. */
export function tensorBytes(dtype: TensorDtype, shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, ITEM_BYTES[dtype]);
}
