import type { ReductionNode } from "@segue/core";
import type { Communicator } from "../nccl/communicator.js";
import type { JoinParts, NodeSlice } from "./join-parts.js";

/** A member of the generation as the exchange sees it; its rank is its place in the list. */
export interface CollectMember {
  readonly nodes: readonly ReductionNode[];
  /** The floats of every node that this member adds up. */
  readonly begin: number;
  readonly end: number;
}

export interface Collection {
  readonly rank: number;
  readonly members: readonly CollectMember[];
  /** Own nodes' sums, f32 [P] each. */
  readonly nodes: readonly Float32Array[];
  /** The root of the reduction tree. */
  readonly node: ReductionNode;
  /** f32 [P]: becomes the sum of all nodes. */
  readonly into: Float32Array;
}

/**
 * Adds up all members' nodes: every rank gets its part of every node, adds in tree order with `join`, and the sums of the parts go round
 * unless everybody's part is the whole. NCCL moves bytes and adds nothing, so the bits are those of any other transport.
 * @returns bytes received
 */
export function collect(communicator: Communicator, collection: Collection, join: (parts: JoinParts) => void): number {
  const { rank, members, nodes, node, into } = collection;
  const own = members[rank] as CollectMember;
  const peers = members.map((member, index) => ({ ...member, rank: index })).filter((peer) => peer.rank !== rank);
  const gathered = peers.flatMap((peer) =>
    peer.nodes.map((peerNode) => ({ node: peerNode, rank: peer.rank, floats: new Float32Array(own.end - own.begin) })),
  );
  const sends = peers.flatMap(({ rank: to, begin, end }) => nodes.map((sum) => ({ rank: to, floats: sum.subarray(begin, end) })));
  communicator.exchange(sends, gathered);
  const parts: NodeSlice[] = own.nodes.map((ownNode, index) => ({
    node: ownNode,
    slice: (nodes[index] as Float32Array).subarray(own.begin, own.end),
  }));
  const ownSum = into.subarray(own.begin, own.end);
  join({ node, parts: [...parts, ...gathered.map((part) => ({ node: part.node, slice: part.floats }))], into: ownSum });
  const sums = peers.map(({ rank: from, begin, end }) => ({ rank: from, floats: into.subarray(begin, end) }));
  const isWhole = ownSum.length === into.length;
  if (!isWhole)
    communicator.exchange(
      peers.map(({ rank: to }) => ({ rank: to, floats: ownSum })),
      sums,
    );
  return [...gathered, ...(isWhole ? [] : sums)].reduce((bytes, { floats }) => bytes + floats.byteLength, 0);
}
