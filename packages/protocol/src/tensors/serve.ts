import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { setImmediate } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { PullRequest, PullResponseSchema, Tensors } from "../gen/segue/v1/tensors_pb.js";
import { RpcError } from "../rpc-error.js";
import type { CallContext, Handlers } from "../server.js";
import type { TensorRegistry } from "./registry.js";
import { CHUNK_BYTES, tensorBytes, type FileTensor, type Tensor } from "./tensor.js";

/** Longest wait for a tensor that is not there yet; callers that want to wait longer ask again. */
export const MAX_WAIT_MS = 60_000;

type Response = MessageInitShape<typeof PullResponseSchema>;

/** The bytes of a tensor, wherever they are. */
interface ByteSource {
  readonly totalBytes: number;
  read(offset: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

interface ByteRange {
  readonly digestOffset: number;
  readonly offset: number;
  readonly end: number;
}

/**
 * The Tensors service over a registry. A reference the registry lacks is looked up in `fallback` (for example files of a checkpoint),
 * then waited for. Fails with NOT_FOUND, OUT_OF_RANGE, and DATA_LOSS for a file that is not as long as its shape says.
 */
export function tensorsHandlers(
  registry: TensorRegistry,
  fallback?: (ref: string) => Promise<Tensor | FileTensor | undefined>,
): Handlers<typeof Tensors> {
  return {
    async *pull(request: PullRequest, { signal }: CallContext): AsyncGenerator<Response, void, undefined> {
      const { ref } = request;
      const waitMs = Math.min(request.waitMs, MAX_WAIT_MS);
      const tensor = registry.get(ref) ?? (await fallback?.(ref)) ?? (await registry.waitFor(ref, waitMs, signal));
      if (!tensor) throw new RpcError(status.NOT_FOUND, "TENSOR_NOT_FOUND", `no tensor ${ref} here (waited ${waitMs} ms)`);
      const source = "path" in tensor ? await openFile(tensor) : bytesInMemory(tensor.data);
      try {
        const range = requestedRange(request, source.totalBytes);
        yield { part: { case: "header", value: header(ref, tensor, source.totalBytes, range) } };
        yield* chunks(source, range, signal);
      } finally {
        await source.close();
      }
    },
  };
}

async function* chunks(source: ByteSource, range: ByteRange, signal: AbortSignal): AsyncGenerator<Response, void, undefined> {
  const digest = createHash("sha256");
  for (let at = range.digestOffset; at < range.offset && !signal.aborted; at += CHUNK_BYTES) {
    digest.update(await source.read(at, Math.min(CHUNK_BYTES, range.offset - at)));
    // Nothing is sent here, so nothing else would let heartbeats through.
    await setImmediate();
  }
  for (let at = range.offset; at < range.end; at += CHUNK_BYTES) {
    const data = await source.read(at, Math.min(CHUNK_BYTES, range.end - at));
    digest.update(data);
    yield { part: { case: "chunk", value: { offset: BigInt(at), data } } };
  }
  yield { part: { case: "trailer", value: { sha256: digest.digest("hex") } } };
}

function header(ref: string, tensor: Tensor | FileTensor, totalBytes: number, range: ByteRange) {
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
  const digestOffset = request.digestOffset ?? offset;
  if (offset > total || end > total || digestOffset > offset) {
    const asked = `bytes ${offset} to ${end}, digest from ${digestOffset}`;
    throw new RpcError(status.OUT_OF_RANGE, "TENSOR_OUT_OF_RANGE", `${request.ref} has ${total} bytes; asked for ${asked}`);
  }
  return { digestOffset: Number(digestOffset), offset: Number(offset), end: Number(end) };
}

function bytesInMemory(data: Uint8Array): ByteSource {
  return {
    totalBytes: data.byteLength,
    read: async (offset, length) => data.subarray(offset, offset + length),
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

function shortFile(path: string, bytes: number, expected: number): RpcError {
  return new RpcError(status.DATA_LOSS, "TENSOR_FILE_DAMAGED", `${path} has ${bytes} bytes, expected ${expected}`);
}
