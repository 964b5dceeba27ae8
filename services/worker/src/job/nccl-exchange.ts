import type { TensorRegistry } from "@segue/protocol";
import type { CollectMember } from "../compute/collect.js";
import type { ComputeThread } from "../compute/compute-thread.js";
import { sharedFloats } from "../compute/shared.js";
import type { Peers } from "../tensors/peers.js";
import type { Exchange, PullCounts } from "./exchange.js";
import { exchangePlan } from "./exchange-plan.js";
import { sliceOf, wholeTree, type Membership } from "./membership.js";
import { blaming } from "./peer-failure.js";
import { refs } from "./refs.js";

/** How long the first member may take to come to the generation. */
const ID_PATIENCE_MS = 300_000;

export interface NcclExchangeOptions {
  readonly jobId: string;
  readonly membership: Membership;
  /** Floats of the vectors that are added up. */
  readonly vectorFloats: number;
  /** Path of NCCL's library, if the loader does not find it. */
  readonly library?: string | undefined;
  readonly compute: ComputeThread;
  readonly epoch: number;
  readonly registry: TensorRegistry;
  readonly peers: Peers;
  readonly signal: AbortSignal;
}

/**
 * Exchange between GPUs with NCCL, one communicator a generation, on the compute thread: it has nothing else to do meanwhile. A raised
 * fence gives the communicator up.
 */
export class NcclExchange implements Exchange {
  readonly #options: NcclExchangeOptions;
  readonly #members: readonly CollectMember[];
  readonly #nodes: readonly Float32Array[];
  readonly #total: Float32Array;
  readonly #pullsPerStep: number;
  #counts: PullCounts = { pulls: 0, bytes: 0 };

  private constructor(options: NcclExchangeOptions) {
    const { membership, vectorFloats } = options;
    const { self, peers } = membership;
    const all = [self, ...peers].sort((a, b) => a.index - b.index);
    const isWhole = exchangePlan(membership, vectorFloats).manner === "whole";
    this.#options = options;
    this.#members = all.map(({ nodes, index }) => {
      const own = isWhole ? { begin: 0, end: vectorFloats } : sliceOf(index, all.length, vectorFloats);
      return { nodes, ...own };
    });
    this.#nodes = self.nodes.map(() => sharedFloats(vectorFloats));
    this.#total = sharedFloats(vectorFloats);
    this.#pullsPerStep = peers.reduce((sum, { nodes }) => sum + nodes.length, isWhole ? 0 : peers.length);
  }

  /**
   * Meets the other members: the first one makes the communicator's id, the others pull it from there.
   * @throws SegueError NCCL_UNAVAILABLE, NCCL_FAILED, VOID; PeerFailure
   */
  static async open(options: NcclExchangeOptions): Promise<NcclExchange> {
    const { jobId, membership, library, compute, epoch, registry, peers, signal } = options;
    const { self, generation } = membership;
    const ref = refs.ncclId(jobId, generation);
    const first = membership.peers.find(({ index }) => index === 0);
    // The id is 128 bytes; they travel as the floats they look like.
    const idFloats = sharedFloats(32);
    if (first) {
      await blaming(first, peers.pull({ address: first.address, ref, into: idFloats, patienceMs: ID_PATIENCE_MS, signal }));
    } else {
      await compute.call("ncclId", { library, into: idFloats });
      registry.publish(ref, { dtype: "u8", shape: [idFloats.byteLength], data: new Uint8Array(idFloats.buffer) });
    }
    signal.throwIfAborted();
    await compute.call("ncclOpen", { epoch, library, id: idFloats, ranks: membership.peers.length + 1, rank: self.index });
    signal.throwIfAborted();
    return new NcclExchange(options);
  }

  get counts(): PullCounts {
    return this.#counts;
  }

  node(_step: number, index: number): Float32Array {
    const node = this.#nodes[index];
    if (!node) throw new RangeError(`this member has no node ${index}`);
    return node;
  }

  total(): Float32Array {
    return this.#total;
  }

  begin(): void {}

  async offer(): Promise<void> {}

  async gather(): Promise<undefined> {
    const { compute, epoch, membership } = this.#options;
    const { bytes } = await compute.call("ncclCollect", {
      epoch,
      rank: membership.self.index,
      members: this.#members,
      nodes: this.#nodes,
      node: wholeTree(membership),
      into: this.#total,
    });
    this.#counts = { pulls: this.#counts.pulls + this.#pullsPerStep, bytes: this.#counts.bytes + bytes };
  }
}
