import { status } from "@grpc/grpc-js";
import { SegueError } from "@segue/core";
import { isServiceError, pullSeries, pullTensor, Tensors, type Client, type SeriesOptions } from "@segue/protocol";
import { connectClient, type Security } from "@segue/runtime";
import { bytesOf } from "../compute/shared.js";

/** How long one request waits at the peer for a tensor it has not computed yet, before it is asked again. */
const WAIT_MS = 30_000;

export interface PeerPull {
  readonly address: string;
  readonly ref: string;
  /** Where the floats go; all of it is filled. */
  readonly into: Float32Array;
  /** First float wanted. @default 0 */
  readonly begin?: number;
  /** How long the tensor may be missing before the peer counts as failed. A dead peer shows much sooner, by its connection. */
  readonly patienceMs: number;
  readonly signal: AbortSignal;
}

export interface PeerSeries extends SeriesOptions {
  readonly address: string;
  /** Item `item` of number `n` is complete. */
  readonly onArrival: (n: number, item: number) => void;
}

/** Connections to the Tensors services of others, one per address, kept open between pulls. */
export class Peers {
  readonly #security: Security;
  readonly #clients = new Map<string, Client<typeof Tensors>>();

  constructor(security: Security) {
    this.#security = security;
  }

  /**
   * Pulls floats from a peer, waiting for it to have them.
   * @throws SegueError PEER_UNREACHABLE, with what went wrong
   */
  async pull({ address, ref, into, begin = 0, patienceMs, signal }: PeerPull): Promise<void> {
    const data = bytesOf(into);
    // A length of 0 would mean "to the end".
    if (data.byteLength === 0) return;
    const offset = begin * Float32Array.BYTES_PER_ELEMENT;
    const giveUpMs = performance.now() + patienceMs;
    const range = { offset, length: data.byteLength, waitMs: Math.min(WAIT_MS, patienceMs), into: data, signal };
    for (;;) {
      try {
        await pullTensor(this.#client(address), ref, range);
        return;
      } catch (error) {
        const missing = isServiceError(error) && error.code === status.NOT_FOUND;
        if (missing && performance.now() < giveUpMs && !signal.aborted) continue;
        throw unreachable(`pulling ${ref} from ${address}`, error);
      }
    }
  }

  /**
   * Receives a series from a peer until the signal aborts.
   * @throws SegueError PEER_UNREACHABLE, with what went wrong
   */
  async follow({ address, onArrival, ...series }: PeerSeries): Promise<never> {
    try {
      const arriving = pullSeries(this.#client(address), series);
      for (;;) {
        const { value } = await arriving.next();
        onArrival(value.n, value.item);
      }
    } catch (error) {
      throw unreachable(`following the series of ${series.items[0]?.ref ?? ""} from ${address}`, error);
    }
  }

  /** Closes the connections to all other addresses. */
  retain(addresses: Iterable<string>): void {
    const wanted = new Set(addresses);
    for (const [address, client] of this.#clients) {
      if (wanted.has(address)) continue;
      client.close();
      this.#clients.delete(address);
    }
  }

  /** Idempotent. */
  close(): void {
    this.retain([]);
  }

  #client(address: string): Client<typeof Tensors> {
    let client = this.#clients.get(address);
    if (!client) {
      client = connectClient(Tensors, address, this.#security);
      this.#clients.set(address, client);
    }
    return client;
  }
}

function unreachable(what: string, cause: unknown): SegueError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new SegueError("PEER_UNREACHABLE", `${what}: ${reason}`, { status: "UNAVAILABLE", cause });
}
