import { pagedFloats, type PagedFloats } from "@segue/core";

/** Floats in memory that both threads see without copying. */
export function sharedFloats(length: number): Float32Array<SharedArrayBuffer> {
  return new Float32Array(new SharedArrayBuffer(length * Float32Array.BYTES_PER_ELEMENT));
}

/** A flat vector in pages that both threads see without copying. */
export function sharedPages(length: number, pageFloats?: number): PagedFloats {
  return pagedFloats(length, pageFloats, sharedFloats);
}

/** 16-bit words in memory that both threads see without copying. */
export function sharedShorts(length: number): Uint16Array<SharedArrayBuffer> {
  return new Uint16Array(new SharedArrayBuffer(length * Uint16Array.BYTES_PER_ELEMENT));
}

/** The same memory as bytes. */
export function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}
