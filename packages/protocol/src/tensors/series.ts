import { crc32 } from "node:zlib";
import { setTimeout as sleep } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { untilAborted } from "../abort.js";
import { messageInPieces } from "../broadcast.js";
import type { Client } from "../client.js";
import { bytesField, fields } from "../encoding-pieces.js";
import {
  PullSeriesResponseSchema,
  type PullSeriesRequest,
  type PullSeriesResponse,
  type SeriesPull,
  type Tensors,
} from "../gen/segue/v1/tensors_pb.js";
import { isServiceError, RpcError } from "../rpc-error.js";
import type { CallContext } from "../server.js";
import { MAX_RESUMES, resumePauseMs } from "./pull.js";
import { MAX_WAIT_MS, type TensorRegistry } from "./registry.js";
import { bytesAt, CHUNK_BYTES, memoryBytes, type MemoryTensor } from "./tensor.js";
import { Watchdog } from "./watchdog.js";

/** One of the tensors of a series. */
export interface SeriesItem {
  /** Reference with `{n}` for the number. */
  readonly ref: string;
  /** First byte wanted. */
  readonly offset: number;
  /** Bytes wanted; at least 1. */
  readonly length: number;
}

export interface SeriesOptions {
  readonly items: readonly SeriesItem[];
  /** Number to begin with. */
  readonly firstN: number;
  /** Where the bytes of an item of a number go, of exactly the item's length. */
  readonly into: (n: number, item: number) => Uint8Array;
  /** Longest silence before the series fails with DEADLINE_EXCEEDED. */
  readonly idleMs: number;
  /** Ends the series, which then throws CANCELLED. */
  readonly signal: AbortSignal;
}

/** Where in a series the next byte is to come. */
interface Position {
  n: number;
  item: number;
  received: number;
}

/**
 * Pulls a series of tensors that a peer publishes one after the other, endlessly; yields each when it is complete. Checks order, length
 * and the CRC-32 of every chunk; after a lost connection it goes on where it stopped.
 * @throws ServiceError of the peer or the connection; RpcError DATA_LOSS (TENSOR_DIGEST_MISMATCH, TENSOR_STREAM_BROKEN),
 * DEADLINE_EXCEEDED (PULL_STALLED), CANCELLED
 */
export async function* pullSeries(
  client: Client<typeof Tensors>,
  options: SeriesOptions,
): AsyncGenerator<{ n: number; item: number }, never, undefined> {
  const { items, idleMs, signal } = options;
  const position: Position = { n: options.firstN, item: 0, received: 0 };
  for (let breaks = 0; ;) {
    // Whatever part of an item had come is sent again: breaks are rare, items are not huge.
    position.received = 0;
    const watchdog = new Watchdog(signal);
    try {
      watchdog.feed(idleMs);
      const pulls = items.map(({ ref, offset, length }) => ({ ref, offset: BigInt(offset), length: BigInt(length) }));
      const request = { pulls, firstN: position.n, firstPull: position.item };
      for await (const message of client.pullSeries(request, { signal: watchdog.signal })) {
        watchdog.feed(idleMs);
        breaks = 0;
        const complete = accept(options, position, message);
        if (complete) yield complete;
      }
      throw broken("the series ended", options, position);
    } catch (error) {
      if (watchdog.starved) {
        const message = `${refAt(options, position)}: nothing came for ${idleMs} ms`;
        throw new RpcError(status.DEADLINE_EXCEEDED, "PULL_STALLED", message, { cause: error });
      }
      if (!isServiceError(error) || error.code !== status.UNAVAILABLE || signal.aborted || ++breaks > MAX_RESUMES) throw error;
      await untilAborted(sleep(resumePauseMs(breaks)), signal);
    } finally {
      watchdog.close();
    }
  }
}

/** Takes one chunk; moves the position; tells which item it completed, if any. */
function accept(options: SeriesOptions, position: Position, chunk: PullSeriesResponse): { n: number; item: number } | undefined {
  const { n, item, received } = position;
  const { data } = chunk;
  const into = options.into(n, item);
  const end = received + data.byteLength;
  if (chunk.n !== n || chunk.pull !== item || Number(chunk.offset) !== received || end > into.byteLength) {
    throw broken(
      `${data.byteLength} bytes at ${chunk.offset} of item ${chunk.pull} of ${chunk.n} do not follow`,
      options,
      position,
    );
  }
  if (crc32(data) !== chunk.crc32) {
    const message = `${refAt(options, position)}: the bytes do not have the checksum the peer sent`;
    throw new RpcError(status.DATA_LOSS, "TENSOR_DIGEST_MISMATCH", message);
  }
  into.set(data, received);
  position.received = end;
  if (end < into.byteLength) return undefined;
  position.received = 0;
  position.item = (item + 1) % options.items.length;
  if (position.item === 0) position.n++;
  return { n, item };
}

function refAt({ items }: SeriesOptions, { n, item }: Position): string {
  return numbered(items[item]?.ref ?? "", n);
}

function broken(what: string, options: SeriesOptions, position: Position): RpcError {
  return new RpcError(status.DATA_LOSS, "TENSOR_STREAM_BROKEN", `${refAt(options, position)}: ${what}`);
}

function numbered(ref: string, n: number): string {
  return ref.replaceAll("{n}", String(n));
}

type Response = MessageInitShape<typeof PullSeriesResponseSchema>;

/** The serving side of {@link pullSeries}. Waits for every tensor as long as the call lasts. Fails with OUT_OF_RANGE, UNAVAILABLE. */
export async function* serveSeries(
  registry: TensorRegistry,
  { pulls, firstN, firstPull }: PullSeriesRequest,
  { signal }: CallContext,
): AsyncGenerator<Response, void, undefined> {
  if (pulls.length === 0) throw new RpcError(status.INVALID_ARGUMENT, "SERIES_EMPTY", "a series needs at least one pull");
  let skip = firstPull;
  for (let n = firstN; !signal.aborted; n++) {
    for (const [pull, wanted] of pulls.entries()) {
      if (skip-- > 0) continue;
      const ref = numbered(wanted.ref, n);
      const tensor = await published(registry, ref, signal);
      if (!tensor) return;
      yield* chunks(ref, tensor, wanted, n, pull);
    }
  }
}

/** undefined when the call ended first. */
async function published(registry: TensorRegistry, ref: string, signal: AbortSignal): Promise<MemoryTensor | undefined> {
  for (;;) {
    const tensor = await registry.waitFor(ref, MAX_WAIT_MS, signal);
    if (tensor || signal.aborted) return tensor;
    if (registry.closed) throw new RpcError(status.UNAVAILABLE, "REGISTRY_CLOSED", `${ref} will not come: this process ends`);
  }
}

function* chunks(
  ref: string,
  tensor: MemoryTensor,
  wanted: SeriesPull,
  n: number,
  pull: number,
): Generator<Response, void, undefined> {
  const [offset, length] = [Number(wanted.offset), Number(wanted.length)];
  const total = memoryBytes(tensor);
  if (length < 1 || offset + length > total) {
    const asked = `bytes ${offset} to ${offset + length}`;
    throw new RpcError(status.OUT_OF_RANGE, "TENSOR_OUT_OF_RANGE", `${ref} has ${total} bytes; asked for ${asked}`);
  }
  for (let at = 0; at < length; at += CHUNK_BYTES) {
    const data = bytesAt(tensor, offset + at, Math.min(length - at, CHUNK_BYTES));
    const place = fields(PullSeriesResponseSchema, { n, pull, offset: BigInt(at), crc32: crc32(data) });
    yield messageInPieces(PullSeriesResponseSchema, [...place, ...bytesField(PullSeriesResponseSchema.field.data.number, data)]);
  }
}
