import { optimizerSlice } from "@segue/core";
import type { ExchangePlan } from "@segue/engine";
import type { TensorRegistry } from "@segue/protocol";
import type { ComputeThread } from "../compute/compute-thread.js";
import { bytesOf, sharedFloats } from "../compute/shared.js";
import type { Peers } from "../tensors/peers.js";
import { exchangePlan } from "./exchange-plan.js";
import { sliceOf, wholeTree, type Membership } from "./membership.js";
import { blaming } from "./peer-failure.js";
import { refs } from "./refs.js";

/** How long the slowest member may take to come to the generation. */
const OFFER_PATIENCE_MS = 300_000;
/** What an offer takes on the wire, its text filled up with zeros. */
const OFFER_BYTES = 4096;

export interface DeviceExchangeOptions {
  readonly jobId: string;
  readonly transport: ExchangePlan["transport"];
  readonly membership: Membership;
  readonly wire: ExchangePlan["wire"];
  /** For a slower member's part. */
  readonly patienceMs: number;
  /** Floats of what is added up, and of how many vectors that is. */
  readonly vectorFloats: number;
  /** Each member steps its slice of the parameters. */
  readonly sharded: boolean;
  readonly vectors: number;
  /** Path of NCCL's library, if the loader does not find it. */
  readonly ncclLibrary?: string | undefined;
  readonly compute: ComputeThread;
  readonly epoch: number;
  readonly registry: TensorRegistry;
  readonly peers: Peers;
  readonly signal: AbortSignal;
}

/**
 * Lets the members' engines exchange gradients by themselves: each tells the others, by way of its Tensors service, how it can be reached.
 * @throws SegueError EXCHANGE_UNAVAILABLE, VOID; PeerFailure
 */
export async function connectDevices(options: DeviceExchangeOptions): Promise<void> {
  const { jobId, membership, compute, epoch, registry, peers, signal, patienceMs, ncclLibrary } = options;
  const { generation, self } = membership;
  const ref = (member: number): string => refs.exchangeOffer(jobId, generation, member);
  const { offer } = await compute.call("exchangeOpen", { epoch, plan: planOf(options), patienceMs, ncclLibrary });
  signal.throwIfAborted();
  registry.publish(ref(self.index), { dtype: "u8", shape: [OFFER_BYTES], data: encode(offer) });
  const offers: string[] = [];
  offers[self.index] = offer;
  await Promise.all(
    membership.peers.map(async (peer) => {
      const { address, index } = peer;
      // Peers give floats; these are text.
      const into = sharedFloats(OFFER_BYTES / Float32Array.BYTES_PER_ELEMENT);
      await blaming(peer, peers.pull({ address, ref: ref(index), into, patienceMs: OFFER_PATIENCE_MS, signal }));
      offers[index] = decode(bytesOf(into));
    }),
  );
  await compute.call("exchangeConnect", { epoch, offers });
  signal.throwIfAborted();
}

function planOf({ transport, membership, vectorFloats, vectors, wire, sharded }: DeviceExchangeOptions): ExchangePlan {
  const { self, peers } = membership;
  const all = [self, ...peers].sort((a, b) => a.index - b.index);
  const isWhole = exchangePlan(membership, vectorFloats).manner === "whole";
  const members = all.map(({ nodes, index }) => {
    if (sharded) return { nodes, ...optimizerSlice(index, all.length, vectorFloats) };
    const own = isWhole ? { begin: 0, end: vectorFloats } : sliceOf(index, all.length, vectorFloats);
    return { nodes, ...own };
  });
  return { transport, members, self: self.index, root: wholeTree(membership), vectors, wire, sharded };
}

function encode(offer: string): Uint8Array {
  const bytes = new Uint8Array(OFFER_BYTES);
  const { written, read } = new TextEncoder().encodeInto(offer, bytes);
  if (read < offer.length || written === OFFER_BYTES) throw new RangeError(`an offer of ${offer.length} characters`);
  return bytes;
}

function decode(bytes: Uint8Array): string {
  // Shared memory cannot be decoded.
  const text = bytes.slice(0, bytes.indexOf(0));
  return new TextDecoder().decode(text);
}
