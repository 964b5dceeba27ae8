import type { ReductionNode } from "@segue/core";
import type { SeriesItem, TensorRegistry } from "@segue/protocol";
import { faultPoint } from "@segue/runtime";
import type { NodeSlice } from "../compute/join-parts.js";
import type { ComputeThread } from "../compute/compute-thread.js";
import { bytesOf, sharedFloats, sharedShorts } from "../compute/shared.js";
import type { Peers } from "../tensors/peers.js";
import { Arrivals } from "./arrivals.js";
import type { Exchange, PartsToAdd, PullCounts } from "./exchange.js";
import { exchangePlan, sumSlice, type ExchangePlan } from "./exchange-plan.js";
import { wholeTree, type Membership, type MemberPlan } from "./membership.js";
import { blaming } from "./peer-failure.js";
import { refs } from "./refs.js";

export interface GrpcExchangeOptions {
  readonly jobId: string;
  readonly membership: Membership;
  /** Floats of the vectors that are added up. */
  readonly vectorFloats: number;
  /** What nodes and sums are rounded to before they travel. */
  readonly wire: "f32" | "bf16";
  /** For a slower member's part. */
  readonly patienceMs: number;
  readonly compute: ComputeThread;
  readonly epoch: number;
  readonly registry: TensorRegistry;
  readonly peers: Peers;
  /** Aborts with the generation. */
  readonly signal: AbortSignal;
}

/** Numbers as they travel: floats, or the bits of bfloat16. */
type Wire = Float32Array | Uint16Array;

/** One tensor of every step that a peer publishes. */
interface Expected {
  readonly phase: "nodes" | "sums";
  readonly item: SeriesItem;
  readonly into: (step: number) => Wire;
}

/**
 * Exchange over the members' Tensors services: each peer's tensors come as one endless series, so nothing is asked for at a step. Memory
 * belongs to the generation, so a straggler of an older one never sees it.
 *
 * Two sets of buffers are used in turn. Who computes step s + 2 has everything of s + 1 from every peer, each of which had by then applied
 * s; so nobody still sends, receives or adds in the buffers of s.
 */
export class GrpcExchange implements Exchange {
  readonly #options: GrpcExchangeOptions;
  readonly #plan: ExchangePlan;
  /** Of even and of odd steps. */
  readonly #buffers: readonly [StepBuffers, StepBuffers];
  readonly #arrivals: Arrivals;
  #counts: PullCounts = { pulls: 0, bytes: 0 };

  /** Begins to pull what the peers publish from `firstStep` on. */
  constructor(options: GrpcExchangeOptions, firstStep: number) {
    const { membership, vectorFloats } = options;
    this.#options = options;
    this.#plan = exchangePlan(membership, vectorFloats);
    this.#buffers = [stepBuffers(options, this.#plan), stepBuffers(options, this.#plan)];
    const expected = membership.peers.map((peer) => ({ peer, items: this.#expectedOf(peer) }));
    const count = (phase: string): number => expected.flatMap(({ items }) => items).filter((item) => item.phase === phase).length;
    const counts = { nodes: count("nodes"), sums: count("sums") };
    this.#arrivals = new Arrivals((key) => (key.startsWith("nodes") ? counts.nodes : counts.sums));
    for (const { peer, items } of expected) if (items.length > 0) void this.#follow(peer, items, firstStep);
  }

  get counts(): PullCounts {
    return this.#counts;
  }

  node(step: number, index: number): Float32Array {
    return at(this.#of(step).nodes, index);
  }

  total(step: number): Float32Array {
    return this.#of(step).total;
  }

  begin(step: number): void {
    const { jobId, membership, registry } = this.#options;
    for (const node of membership.self.nodes) registry.remove(refs.node(jobId, membership.generation, step - 2, node));
    registry.remove(refs.sum(jobId, membership.generation, step - 2, membership.self.index));
  }

  async offer(step: number, index: number): Promise<void> {
    const { jobId, membership, signal } = this.#options;
    const wire = await this.#onTheWire(this.node(step, index), this.#of(step).wireNodes[index]);
    signal.throwIfAborted();
    this.#publish(refs.node(jobId, membership.generation, step, at(membership.self.nodes, index)), wire);
  }

  async gather(step: number): Promise<PartsToAdd | undefined> {
    const { compute, epoch, jobId, membership, signal } = this.#options;
    await this.#arrivals.all(`nodes ${step}`);
    signal.throwIfAborted();
    await faultPoint("worker.nodesGathered", step);
    const node = wholeTree(membership);
    if (this.#plan.manner === "whole") return { node, parts: this.#parts(step) };
    const { begin, end } = this.#plan.own;
    const own = this.total(step).subarray(begin, end);
    await compute.call("join", { epoch, node, parts: this.#parts(step), into: own });
    const wire = await this.#onTheWire(own, this.#of(step).wireTotal?.subarray(begin, end));
    signal.throwIfAborted();
    this.#publish(refs.sum(jobId, membership.generation, step, membership.self.index), wire);
    await faultPoint("worker.sumPublished", step);
    await this.#arrivals.all(`sums ${step}`);
    await faultPoint("worker.sumsGathered", step);
    await this.#widenSums(step);
    return undefined;
  }

  #of(step: number): StepBuffers {
    return this.#buffers[step % 2 === 0 ? 0 : 1];
  }

  /** What travels of these floats; under bf16 they are rounded themselves, so that everybody adds the same. */
  async #onTheWire(floats: Float32Array, wire: Uint16Array | undefined): Promise<Wire> {
    if (!wire) return floats;
    const { compute, epoch } = this.#options;
    await compute.call("round", { epoch, floats, into: wire });
    return wire;
  }

  #publish(ref: string, values: Wire): void {
    const dtype = values instanceof Uint16Array ? "bf16" : "f32";
    this.#options.registry.publish(ref, { dtype, shape: [values.length], data: bytesOf(values) });
  }

  /** The own part of every member's nodes: together the whole tree. */
  #parts(step: number): NodeSlice[] {
    const { begin, end } = this.#plan.own;
    const { nodes } = this.#options.membership.self;
    const own = nodes.map((node, index): NodeSlice => ({ node, slice: this.node(step, index).subarray(begin, end) }));
    return [...own, ...this.#of(step).gathered];
  }

  async #widenSums(step: number): Promise<void> {
    const { wireTotal } = this.#of(step);
    if (!wireTotal) return;
    const { compute, epoch } = this.#options;
    const { begin, end } = this.#plan.own;
    const total = this.total(step);
    const before = { from: wireTotal.subarray(0, begin), into: total.subarray(0, begin) };
    const after = { from: wireTotal.subarray(end), into: total.subarray(end) };
    await compute.call("widen", { epoch, pairs: [before, after] });
  }

  /** What a peer publishes at every step, in the order in which it does. */
  #expectedOf(peer: MemberPlan): Expected[] {
    const { jobId, membership, vectorFloats } = this.#options;
    const { generation } = membership;
    const { begin, end } = this.#plan.own;
    const nodes = peer.nodes.map((node): Expected => ({
      phase: "nodes",
      item: this.#item(refs.node(jobId, generation, "{n}", node), begin, end),
      into: (step) => this.#gatheredOf(step, node),
    }));
    const slice = sumSlice(membership, peer, vectorFloats);
    const sum: Expected = {
      phase: "sums",
      item: this.#item(refs.sum(jobId, generation, "{n}", peer.index), 0, slice.end - slice.begin),
      into: (step) => (this.#of(step).wireTotal ?? this.total(step)).subarray(slice.begin, slice.end),
    };
    return [...nodes, ...(this.#plan.manner === "whole" ? [] : [sum])].filter(({ item }) => item.length > 0);
  }

  #item(ref: string, begin: number, end: number): SeriesItem {
    const bytes = this.#options.wire === "bf16" ? Uint16Array.BYTES_PER_ELEMENT : Float32Array.BYTES_PER_ELEMENT;
    return { ref, offset: begin * bytes, length: (end - begin) * bytes };
  }

  #gatheredOf(step: number, { lo }: ReductionNode): Wire {
    const part = this.#of(step).gathered.find(({ node }) => node.lo === lo);
    if (!part) throw new RangeError(`no peer has a node from shard ${lo}`);
    return part.slice;
  }

  async #follow(peer: MemberPlan, expected: readonly Expected[], firstStep: number): Promise<void> {
    const { peers, patienceMs, signal } = this.#options;
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
      idleMs: patienceMs,
      signal,
      onArrival,
    };
    await blaming(peer, peers.follow(series)).catch((error: unknown) => this.#arrivals.fail(error));
  }
}

/** The memory of one step. */
interface StepBuffers {
  /** Own nodes in order, f32 [P] each. */
  readonly nodes: readonly Float32Array[];
  /** f32 [P]. */
  readonly total: Float32Array;
  /** Own part of the peers' nodes, as it comes. */
  readonly gathered: readonly NodeSlice[];
  /** Under bf16: nodes and total as they travel. */
  readonly wireNodes: readonly Uint16Array[];
  readonly wireTotal?: Uint16Array | undefined;
}

function stepBuffers({ membership, vectorFloats, wire }: GrpcExchangeOptions, { manner, own }: ExchangePlan): StepBuffers {
  const { self, peers } = membership;
  const [isRounded, ownFloats] = [wire === "bf16", own.end - own.begin];
  const part = (): Wire => (isRounded ? sharedShorts(ownFloats) : sharedFloats(ownFloats));
  return {
    nodes: self.nodes.map(() => sharedFloats(vectorFloats)),
    total: sharedFloats(vectorFloats),
    gathered: peers.flatMap(({ nodes }) => nodes.map((node) => ({ node, slice: part() }))),
    wireNodes: isRounded ? self.nodes.map(() => sharedShorts(vectorFloats)) : [],
    wireTotal: isRounded && manner === "sliced" ? sharedShorts(vectorFloats) : undefined,
  };
}

function at<T>(items: readonly T[], index: number): T {
  const item = items[index];
  if (item === undefined) throw new RangeError(`no item ${index}`);
  return item;
}
