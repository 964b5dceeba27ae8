import { setTimeout as sleep } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { status } from "@grpc/grpc-js";
import { untilAborted } from "../abort.js";
import type { Client } from "../client.js";
import type { PullResponse, TensorHeader, Tensors } from "../gen/segue/v1/tensors_pb.js";
import { isServiceError, RpcError } from "../rpc-error.js";
import { isTensorDtype, tensorBytes, type TensorDtype } from "./tensor.js";
import { Watchdog } from "./watchdog.js";

export interface PullOptions {
  /** First byte wanted. */
  readonly offset?: number | undefined;
  /** Bytes wanted; 0 or absent: to the end. */
  readonly length?: number | undefined;
  /** How long the peer waits for a tensor it does not have yet. It caps this at MAX_WAIT_MS. */
  readonly waitMs?: number | undefined;
  /** Longest silence, beyond waitMs, before the pull fails with DEADLINE_EXCEEDED. */
  readonly idleMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Where the bytes go, of exactly the range's length; absent: a new array, aligned for any element type. */
  readonly into?: Uint8Array | undefined;
}

export interface PulledTensor {
  readonly dtype: TensorDtype;
  /** Of the whole tensor, even if only a range of its bytes was pulled. */
  readonly shape: readonly number[];
  /** The bytes of the range. */
  readonly data: Uint8Array;
}

/** Breaks in a row, none of them after at least one more chunk, that a pull survives. */
export const MAX_RESUMES = 5;
const FIRST_PAUSE_MS = 50;

/** Pause before the attempt after `breaks` breaks in a row. */
export function resumePauseMs(breaks: number): number {
  return FIRST_PAUSE_MS * 2 ** breaks;
}

const DEFAULT_IDLE_MS = 30_000;

/** What has arrived so far, over all attempts. */
interface Progress {
  header?: TensorHeader;
  data?: Uint8Array;
  received: number;
}

/**
 * Pulls a tensor, or a range of its bytes, from a peer. Checks order, length and the CRC-32 of every chunk; after a lost
 * connection it goes on where it stopped. The pieces in `into` are undefined if it fails.
 * @throws ServiceError of the peer or the connection; RpcError DATA_LOSS (TENSOR_DIGEST_MISMATCH, TENSOR_STREAM_BROKEN),
 * DEADLINE_EXCEEDED (PULL_STALLED), INVALID_ARGUMENT (TENSOR_SIZE_MISMATCH: `into` has another length than the range), CANCELLED
 */
export async function pullTensor(client: Client<typeof Tensors>, ref: string, options: PullOptions = {}): Promise<PulledTensor> {
  const progress: Progress = { received: 0 };
  for (let breaks = 0; ;) {
    const before = progress.received;
    try {
      return await receive(client, ref, options, progress);
    } catch (error) {
      if (!isServiceError(error) || error.code !== status.UNAVAILABLE || options.signal?.aborted) throw error;
      breaks = progress.received > before ? 1 : breaks + 1;
      if (breaks > MAX_RESUMES) throw error;
      await untilAborted(sleep(resumePauseMs(breaks)), options.signal);
    }
  }
}

async function receive(
  client: Client<typeof Tensors>,
  ref: string,
  options: PullOptions,
  progress: Progress,
): Promise<PulledTensor> {
  const complete = completeTensor(progress);
  // The connection was lost behind the last byte.
  if (complete && progress.received > 0) return complete;
  const { offset = 0, length = 0, waitMs = 0, idleMs = DEFAULT_IDLE_MS, signal } = options;
  const request = {
    ref,
    offset: BigInt(offset + progress.received),
    length: BigInt(length === 0 ? 0 : length - progress.received),
    waitMs,
  };
  const watchdog = new Watchdog(signal);
  try {
    watchdog.feed(waitMs + idleMs);
    // To the very end: leaving at the last chunk would reset the stream, and a server closes a connection that sees thousands of resets.
    for await (const message of client.pull(request, { signal: watchdog.signal })) {
      watchdog.feed(idleMs);
      accept(ref, options, progress, message);
    }
    const pulled = completeTensor(progress);
    if (!pulled) throw broken(ref, `the stream ended after ${progress.received} bytes`);
    return pulled;
  } catch (error) {
    if (watchdog.starved) {
      throw new RpcError(status.DEADLINE_EXCEEDED, "PULL_STALLED", `${ref}: nothing came for ${idleMs} ms`, { cause: error });
    }
    throw error;
  } finally {
    watchdog.close();
  }
}

function completeTensor({ header, data, received }: Progress): PulledTensor | undefined {
  if (!header || data?.byteLength !== received) return undefined;
  return { dtype: header.dtype as TensorDtype, shape: header.shape.map(Number), data };
}

/** Takes one message. */
function accept(ref: string, options: PullOptions, progress: Progress, { part }: PullResponse): void {
  const offset = options.offset ?? 0;
  switch (part.case) {
    case "header": {
      const rangeBytes = Number(part.value.length) + progress.received;
      checkHeader(ref, part.value, options, progress, rangeBytes);
      progress.data ??= options.into ?? new Uint8Array(rangeBytes);
      progress.header = part.value;
      return;
    }
    case "chunk": {
      const { data: bytes } = part.value;
      if (!progress.data) throw broken(ref, "a chunk came before the header");
      if (
        Number(part.value.offset) !== offset + progress.received ||
        progress.received + bytes.byteLength > progress.data.byteLength
      ) {
        throw broken(
          ref,
          `a chunk of ${bytes.byteLength} bytes at ${part.value.offset} does not follow ${offset + progress.received}`,
        );
      }
      if (crc32(bytes) !== part.value.crc32) {
        const message = `${ref}: the bytes do not have the checksum the peer sent`;
        throw new RpcError(status.DATA_LOSS, "TENSOR_DIGEST_MISMATCH", message);
      }
      progress.data.set(bytes, progress.received);
      progress.received += bytes.byteLength;
      return;
    }
    case undefined:
      throw broken(ref, "a message of unknown kind came");
  }
}

function checkHeader(ref: string, header: TensorHeader, options: PullOptions, progress: Progress, rangeBytes: number): void {
  const { offset = 0, length = 0, into } = options;
  const total = Number(header.totalBytes);
  if (!isTensorDtype(header.dtype) || tensorBytes(header.dtype, header.shape.map(Number)) !== total) {
    throw broken(ref, `the header's ${header.dtype} [${header.shape.join(", ")}] does not make ${total} bytes`);
  }
  if (Number(header.offset) !== offset + progress.received || rangeBytes !== (length === 0 ? total - offset : length)) {
    throw broken(ref, `the header promises ${header.length} bytes from ${header.offset}, which is not what was asked for`);
  }
  if (progress.header && (progress.header.totalBytes !== header.totalBytes || progress.header.dtype !== header.dtype)) {
    throw broken(ref, "the tensor changed between two attempts");
  }
  if (into && into.byteLength !== rangeBytes) {
    const sizes = `${rangeBytes} bytes do not fit the ${into.byteLength} bytes given`;
    throw new RpcError(status.INVALID_ARGUMENT, "TENSOR_SIZE_MISMATCH", `${ref}: ${sizes}`);
  }
}

function broken(ref: string, what: string): RpcError {
  return new RpcError(status.DATA_LOSS, "TENSOR_STREAM_BROKEN", `${ref}: ${what}`);
}
