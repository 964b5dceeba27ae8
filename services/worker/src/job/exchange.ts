import type { ReductionNode } from "@segue/core";
import type { SeriesItem, TensorRegistry } from "@segue/protocol";
import type { NodeSlice } from "../compute/calls.js";
import { bytesOf, sharedFloats } from "../compute/shared.js";
import type { Peers } from "../tensors/peers.js";
import { Arrivals } from "./arrivals.js";
import { exchangePlan, sumSlice, type ExchangePlan } from "./exchange-plan.js";
import { type Membership, type MemberPlan } from "./membership.js";
import { blaming } from "./peer-failure.js";
import { refs } from "./refs.js";

/** How long a slower member may take for its part of a step; a lost one is noticed by the coordinator within seconds. */
const STEP_PATIENCE_MS = 300_000;

export interface ExchangeOptions {
  readonly jobId: string;
  readonly membership: Membership;
  /** Floats of the vectors that are added up. */
  readonly vectorFloats: number;
  readonly registry: TensorRegistry;
  readonly peers: Peers;
  /** Aborts with the generation. */
  readonly signal: AbortSignal;
}

/** What has been pulled so far. */
export interface PullCounts {
  readonly pulls: number;
  readonly bytes: number;
}

/** One tensor of every step that a peer publishes. */
interface Expected {
  readonly phase: "nodes" | "sums";
  readonly item: SeriesItem;
  readonly into: (step: number) => Float32Array;
}

/**
 * The exchange of the members' sums within one generation: each peer's tensors come as one endless series, so nothing is asked for at a
 * step. Memory belongs to the generation, so a straggler of an older one never sees it.
 *
 * Two sets of buffers are used in turn. Who computes step s + 2 has everything of s + 1 from every peer, each of which had by then applied
 * s; so nobody still sends, receives or adds in the buffers of s.
 */
export class Exchange {
  readonly #options: ExchangeOptions;
  readonly #plan: ExchangePlan;
  /** Of even and of odd steps; own nodes in order, f32 [P] each. */
  readonly #nodes: readonly (readonly Float32Array[])[];
  readonly #totals: readonly Float32Array[];
  /** Own part of the peers' nodes. */
  readonly #gathered: readonly (readonly NodeSlice[])[];
  readonly #arrivals: Arrivals;
  #counts: PullCounts = { pulls: 0, bytes: 0 };

  /** Begins to pull what the peers publish from `firstStep` on. */
  constructor(options: ExchangeOptions, firstStep: number) {
    const { membership, vectorFloats } = options;
    const { self, peers } = membership;
    const twice = <T>(make: () => T): readonly T[] => [make(), make()];
    this.#options = options;
    this.#plan = exchangePlan(membership, vectorFloats);
    const ownFloats = this.#plan.own.end - this.#plan.own.begin;
    // Alone, one set does: nobody reads it but the compute thread, in order. The only node then is the total.
    if (peers.length === 0) {
      const nodes = self.nodes.map(() => sharedFloats(vectorFloats));
      this.#nodes = [nodes, nodes];
      this.#totals = [at(nodes, 0), at(nodes, 0)];
    } else {
      this.#nodes = twice(() => self.nodes.map(() => sharedFloats(vectorFloats)));
      this.#totals = twice(() => sharedFloats(vectorFloats));
    }
    this.#gathered = twice(() => peers.flatMap((peer) => peer.nodes.map((node) => ({ node, slice: sharedFloats(ownFloats) }))));
    const expected = peers.map((peer) => ({ peer, items: this.#expectedOf(peer) }));
    const count = (phase: string): number =>
      expected.reduce((sum, { items }) => sum + items.filter((item) => item.phase === phase).length, 0);
    const counts = { nodes: count("nodes"), sums: count("sums") };
    this.#arrivals = new Arrivals((key) => (key.startsWith("nodes") ? counts.nodes : counts.sums));
    for (const { peer, items } of expected) if (items.length > 0) void this.#follow(peer, items, firstStep);
  }

  /** Everything pulled since the generation began. */
  get counts(): PullCounts {
    return this.#counts;
  }

  /** Where the sum of own node `index` belongs, f32 [P]. */
  node(step: number, index: number): Float32Array {
    return at(at(this.#nodes, step % 2), index);
  }

  /** Where the sum of a whole step belongs, f32 [P]. */
  total(step: number): Float32Array {
    return at(this.#totals, step % 2);
  }

  /** Whether {@link total} is complete once the parts of its own slice are added. */
  get addsWhole(): boolean {
    return this.#plan.manner === "whole";
  }

  /** The part of {@link total} that this member adds up. */
  ownTotal(step: number): Float32Array {
    return this.total(step).subarray(this.#plan.own.begin, this.#plan.own.end);
  }

  /** Takes back what was published in earlier steps and is about to be overwritten. */
  begin(step: number): void {
    const { jobId, membership, registry } = this.#options;
    for (const node of membership.self.nodes) registry.remove(refs.node(jobId, membership.generation, step - 2, node));
    registry.remove(refs.sum(jobId, membership.generation, step - 2, membership.self.index));
  }

  publishNode(step: number, index: number): void {
    const { jobId, membership, vectorFloats, registry } = this.#options;
    const ref = refs.node(jobId, membership.generation, step, at(membership.self.nodes, index));
    registry.publish(ref, { dtype: "f32", shape: [vectorFloats], data: bytesOf(this.node(step, index)) });
  }

  publishSum(step: number): void {
    const { jobId, membership, registry } = this.#options;
    const slice = this.ownTotal(step);
    const ref = refs.sum(jobId, membership.generation, step, membership.self.index);
    registry.publish(ref, { dtype: "f32", shape: [slice.length], data: bytesOf(slice) });
  }

  /** Waits for the own part of every node of every peer. @throws PeerFailure */
  async gatherNodes(step: number): Promise<void> {
    if (this.#options.membership.peers.length > 0) await this.#arrivals.all(`nodes ${step}`);
  }

  /** Waits for the peers' slices of the total. @throws PeerFailure */
  async gatherSums(step: number): Promise<void> {
    await this.#arrivals.all(`sums ${step}`);
  }

  /** The own part of every member's nodes: together the whole tree. */
  parts(step: number): NodeSlice[] {
    const { begin, end } = this.#plan.own;
    const own = this.#options.membership.self.nodes.map((node, index) => {
      return { node, slice: this.node(step, index).subarray(begin, end) };
    });
    return own.concat(at(this.#gathered, step % 2));
  }

  /** What a peer publishes at every step, in the order in which it does. */
  #expectedOf(peer: MemberPlan): Expected[] {
    const { jobId, membership, vectorFloats } = this.#options;
    const { generation } = membership;
    const { begin, end } = this.#plan.own;
    const nodes = peer.nodes.map((node): Expected => ({
      phase: "nodes",
      item: itemOf(refs.node(jobId, generation, "{n}", node), begin, end),
      into: (step) => this.#gatheredOf(step, node),
    }));
    const slice = sumSlice(membership, peer, vectorFloats);
    const sum: Expected = {
      phase: "sums",
      item: itemOf(refs.sum(jobId, generation, "{n}", peer.index), 0, slice.end - slice.begin),
      into: (step) => this.total(step).subarray(slice.begin, slice.end),
    };
    return [...nodes, ...(this.addsWhole ? [] : [sum])].filter(({ item }) => item.length > 0);
  }

  #gatheredOf(step: number, { lo }: ReductionNode): Float32Array {
    const part = at(this.#gathered, step % 2).find(({ node }) => node.lo === lo);
    if (!part) throw new RangeError(`no peer has a node from shard ${lo}`);
    return part.slice;
  }

  async #follow(peer: MemberPlan, expected: readonly Expected[], firstStep: number): Promise<void> {
    const { peers, signal } = this.#options;
    const onArrival = (step: number, index: number): void => {
      const { phase, item } = at(expected, index);
      this.#counts = { pulls: this.#counts.pulls + 1, bytes: this.#counts.bytes + item.length };
      this.#arrivals.add(`${phase} ${step}`);
    };
    const series = {
      address: peer.address,
      items: expected.map(({ item }) => item),
      firstN: firstStep,
      into: (step: number, index: number) => bytesOf(at(expected, index).into(step)),
      idleMs: STEP_PATIENCE_MS,
      signal,
      onArrival,
    };
    await blaming(peer, peers.follow(series)).catch((error: unknown) => this.#arrivals.fail(error));
  }
}

function itemOf(ref: string, begin: number, end: number): SeriesItem {
  const { BYTES_PER_ELEMENT: size } = Float32Array;
  return { ref, offset: begin * size, length: (end - begin) * size };
}

function at<T>(items: readonly T[], index: number): T {
  const item = items[index];
  if (item === undefined) throw new RangeError(`no item ${index}`);
  return item;
}
