import type { TensorRegistry } from "@segue/protocol";
import type { NodeSlice } from "../compute/calls.js";
import { bytesOf, sharedFloats } from "../compute/shared.js";
import type { Peers } from "../tensors/peers.js";
import { sliceOf, type Membership, type MemberPlan, type Slice } from "./membership.js";
import { blaming } from "./peer-failure.js";
import { refs } from "./refs.js";

/** How long a slower member may take for its part of a step; a lost one is noticed by the coordinator within seconds. */
const STEP_PATIENCE_MS = 300_000;

export interface ExchangeOptions {
  readonly jobId: string;
  readonly membership: Membership;
  readonly parameters: number;
  readonly registry: TensorRegistry;
  readonly peers: Peers;
}

/**
 * The exchange of gradients within one generation. Its memory belongs to the generation, so a straggler of an older one never sees it.
 *
 * Node sums use one set of buffers: who has finished step s has everybody's sums of s, so everybody had pulled all nodes of s. Total sums
 * use two in turn: while this member works on s + 1, a slower one may still be pulling its slice of s, but not once its nodes of s + 2 are there.
 */
export class Exchange {
  readonly #options: ExchangeOptions;
  readonly #memberCount: number;
  readonly #own: Slice;
  readonly #nodes: readonly Float32Array[];
  readonly #totals: readonly [Float32Array, Float32Array];
  /** Own slice of the peers' nodes, in the order of peers and their nodes. */
  readonly #gathered: readonly (readonly Float32Array[])[];

  constructor(options: ExchangeOptions) {
    const { membership, parameters } = options;
    this.#options = options;
    this.#memberCount = membership.peers.length + 1;
    this.#own = sliceOf(membership.self.index, this.#memberCount, parameters);
    this.#nodes = membership.self.nodes.map(() => sharedFloats(parameters));
    // A sole member's only node is the total.
    this.#totals =
      membership.peers.length === 0 ? [this.node(0), this.node(0)] : [sharedFloats(parameters), sharedFloats(parameters)];
    this.#gathered = membership.peers.map((peer) => peer.nodes.map(() => sharedFloats(this.#own.end - this.#own.begin)));
  }

  /** Where the gradient sum of own node `index` belongs, f32 [P]. */
  node(index: number): Float32Array {
    return at(this.#nodes, index);
  }

  /** Where the gradient sum of a whole step belongs, f32 [P]. */
  total(step: number): Float32Array {
    return at(this.#totals, step % 2);
  }

  /** The part of {@link total} that this member computes. */
  ownTotal(step: number): Float32Array {
    return this.total(step).subarray(this.#own.begin, this.#own.end);
  }

  /** Takes back what was published in earlier steps and is about to be overwritten. */
  begin(step: number): void {
    const { jobId, membership, registry } = this.#options;
    for (const node of membership.self.nodes) registry.remove(refs.node(jobId, membership.generation, step - 1, node));
    registry.remove(refs.sum(jobId, membership.generation, step - 2, membership.self.index));
  }

  publishNode(step: number, index: number): void {
    const { jobId, membership, parameters, registry } = this.#options;
    const ref = refs.node(jobId, membership.generation, step, at(membership.self.nodes, index));
    registry.publish(ref, { dtype: "f32", shape: [parameters], data: bytesOf(this.node(index)) });
  }

  publishSum(step: number): void {
    const { jobId, membership, registry } = this.#options;
    const slice = this.ownTotal(step);
    const ref = refs.sum(jobId, membership.generation, step, membership.self.index);
    registry.publish(ref, { dtype: "f32", shape: [slice.length], data: bytesOf(slice) });
  }

  /** Pulls the own slice of every node of every peer, as they become ready. @throws PeerFailure */
  async pullNodes(step: number, signal: AbortSignal): Promise<void> {
    const { jobId, membership } = this.#options;
    const pulls = membership.peers.flatMap((peer, p) =>
      peer.nodes.map((node, n) => {
        const ref = refs.node(jobId, membership.generation, step, node);
        return this.#pull(peer, ref, at(at(this.#gathered, p), n), this.#own.begin, signal);
      }),
    );
    await Promise.all(pulls);
  }

  /** Own slice of every member's nodes: together the whole tree. */
  parts(): NodeSlice[] {
    const { self, peers } = this.#options.membership;
    const own = self.nodes.map((node, n) => ({ node, slice: this.node(n).subarray(this.#own.begin, this.#own.end) }));
    return own.concat(peers.flatMap((peer, p) => peer.nodes.map((node, n) => ({ node, slice: at(at(this.#gathered, p), n) }))));
  }

  /** Pulls the peers' slices of the total. @throws PeerFailure */
  async pullSums(step: number, signal: AbortSignal): Promise<void> {
    const { jobId, membership, parameters } = this.#options;
    const pulls = membership.peers.map((peer) => {
      const { begin, end } = sliceOf(peer.index, this.#memberCount, parameters);
      const ref = refs.sum(jobId, membership.generation, step, peer.index);
      return this.#pull(peer, ref, this.total(step).subarray(begin, end), 0, signal);
    });
    await Promise.all(pulls);
  }

  #pull(peer: MemberPlan, ref: string, into: Float32Array, begin: number, signal: AbortSignal): Promise<void> {
    const { address } = peer;
    return blaming(peer, this.#options.peers.pull({ address, ref, into, begin, patienceMs: STEP_PATIENCE_MS, signal }));
  }
}

function at<T>(items: readonly T[], index: number): T {
  const item = items[index];
  if (item === undefined) throw new RangeError(`no item ${index}`);
  return item;
}
