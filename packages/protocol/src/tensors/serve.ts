import { open, type FileHandle } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { status } from "@grpc/grpc-js";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { messageInPieces } from "../broadcast.js";
import { bytesField, fields, messageField } from "../encoding-pieces.js";
import { PullResponseSchema, TensorChunkSchema, type PullRequest, type Tensors } from "../gen/segue/v1/tensors_pb.js";
import { RpcError } from "../rpc-error.js";
import type { CallContext, Handlers } from "../server.js";
import { MAX_WAIT_MS, type TensorRegistry } from "./registry.js";
import { serveSeries } from "./series.js";
import {
  bytesAt,
  CHUNK_BYTES,
  memoryBytes,
  tensorBytes,
  type FileRange,
  type FileRangesTensor,
  type FileTensor,
  type MemoryTensor,
} from "./tensor.js";

type Response = MessageInitShape<typeof PullResponseSchema>;

/** The bytes of a tensor, wherever they are. */
interface ByteSource {
  readonly totalBytes: number;
  read(offset: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

type ServedTensor = MemoryTensor | FileTensor | FileRangesTensor;

interface ByteRange {
  readonly offset: number;
  readonly end: number;
}

/**
 * The Tensors service over a registry. A reference the registry lacks is looked up in `fallback` (for example files of a checkpoint),
 * then waited for. Fails with NOT_FOUND, OUT_OF_RANGE, and DATA_LOSS for a file that is not as long as its shape says.
 */
export function tensorsHandlers(
  registry: TensorRegistry,
  fallback?: (ref: string) => Promise<ServedTensor | undefined>,
): Handlers<typeof Tensors> {
  return {
    async *pull(request: PullRequest, { signal }: CallContext): AsyncGenerator<Response, void, undefined> {
      const { ref } = request;
      const waitMs = Math.min(request.waitMs, MAX_WAIT_MS);
      const tensor = registry.get(ref) ?? (await fallback?.(ref)) ?? (await registry.waitFor(ref, waitMs, signal));
      if (!tensor) throw new RpcError(status.NOT_FOUND, "TENSOR_NOT_FOUND", `no tensor ${ref} here (waited ${waitMs} ms)`);
      const source = await openSource(tensor);
      try {
        const range = requestedRange(request, source.totalBytes);
        yield { part: { case: "header", value: header(ref, tensor, source.totalBytes, range) } };
        yield* chunks(source, range);
      } finally {
        await source.close();
      }
    },
    pullSeries: (request, context) => serveSeries(registry, request, context),
  };
}

async function* chunks(source: ByteSource, { offset, end }: ByteRange): AsyncGenerator<Response, void, undefined> {
  for (let at = offset; at < end; at += CHUNK_BYTES) {
    const data = await source.read(at, Math.min(CHUNK_BYTES, end - at));
    const chunk = [
      ...fields(TensorChunkSchema, { offset: BigInt(at), crc32: crc32(data) }),
      ...bytesField(TensorChunkSchema.field.data.number, data),
    ];
    yield messageInPieces(PullResponseSchema, messageField(PullResponseSchema.field.chunk.number, chunk));
  }
}

function header(ref: string, tensor: ServedTensor, totalBytes: number, range: ByteRange) {
  return {
    ref,
    dtype: tensor.dtype,
    shape: tensor.shape.map(BigInt),
    totalBytes: BigInt(totalBytes),
    offset: BigInt(range.offset),
    length: BigInt(range.end - range.offset),
  };
}

function requestedRange(request: PullRequest, totalBytes: number): ByteRange {
  const total = BigInt(totalBytes);
  const { offset } = request;
  const end = request.length === 0n ? total : offset + request.length;
  if (offset > total || end > total) {
    const asked = `bytes ${offset} to ${end}`;
    throw new RpcError(status.OUT_OF_RANGE, "TENSOR_OUT_OF_RANGE", `${request.ref} has ${total} bytes; asked for ${asked}`);
  }
  return { offset: Number(offset), end: Number(end) };
}

function openSource(tensor: ServedTensor): Promise<ByteSource> {
  if ("path" in tensor) return openFile(tensor);
  return "ranges" in tensor ? openRanges(tensor) : Promise.resolve(bytesInMemory(tensor));
}

function bytesInMemory(tensor: MemoryTensor): ByteSource {
  return {
    totalBytes: memoryBytes(tensor),
    read: async (offset, length) => bytesAt(tensor, offset, length),
    close: async () => undefined,
  };
}

async function openFile(tensor: FileTensor): Promise<ByteSource> {
  const file = await open(tensor.path);
  try {
    const totalBytes = (await file.stat()).size;
    const expected = tensorBytes(tensor.dtype, tensor.shape);
    if (totalBytes !== expected) throw shortFile(tensor.path, totalBytes, expected);
    return {
      totalBytes,
      async read(offset, length) {
        // A fresh buffer each time: the previous ones may still wait to be sent.
        const buffer = new Uint8Array(length);
        for (let filled = 0; filled < length;) {
          const { bytesRead } = await file.read(buffer, filled, length - filled, offset + filled);
          if (bytesRead === 0) throw shortFile(tensor.path, offset + filled, totalBytes);
          filled += bytesRead;
        }
        return buffer;
      },
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Ranges are opened as they are read; only one file is open at a time. */
async function openRanges({ dtype, shape, ranges }: FileRangesTensor): Promise<ByteSource> {
  const totalBytes = ranges.reduce((sum, { length }) => sum + length, 0);
  const expected = tensorBytes(dtype, shape);
  if (totalBytes !== expected) throw shortFile(ranges.map(({ path }) => path).join(", "), totalBytes, expected);
  let current: { path: string; file: FileHandle } | undefined;
  return {
    totalBytes,
    async read(offset, length) {
      const buffer = new Uint8Array(length);
      for (let filled = 0; filled < length;) {
        const { path, fileOffset, available } = locate(ranges, offset + filled);
        if (current?.path !== path) {
          await current?.file.close();
          current = undefined;
          current = { path, file: await open(path) };
        }
        const wanted = Math.min(available, length - filled);
        const { bytesRead } = await current.file.read(buffer, filled, wanted, fileOffset);
        if (bytesRead === 0) throw shortFile(path, fileOffset, fileOffset + available);
        filled += bytesRead;
      }
      return buffer;
    },
    close: async () => current?.file.close(),
  };
}

function locate(ranges: readonly FileRange[], position: number): { path: string; fileOffset: number; available: number } {
  let begin = 0;
  for (const { path, offset, length } of ranges) {
    const into = position - begin;
    if (into < length) return { path, fileOffset: offset + into, available: length - into };
    begin += length;
  }
  throw new RangeError(`position ${position} is past the end of the ranges`);
}

function shortFile(path: string, bytes: number, expected: number): RpcError {
  return new RpcError(status.DATA_LOSS, "TENSOR_FILE_DAMAGED", `${path} has ${bytes} bytes, expected ${expected}`);
}
