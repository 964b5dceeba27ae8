import { maximalNodes, optimizerSlice, SegueError, type ReductionNode } from "@segue/core";
import type { Join } from "@segue/protocol";

/** A half-open range of floats of the flat parameter vector. */
export interface Slice {
  readonly begin: number;
  readonly end: number;
}

export interface MemberPlan {
  readonly workerId: string;
  readonly address: string;
  readonly shards: readonly number[];
  /** The sums this member publishes. */
  readonly nodes: readonly ReductionNode[];
  /** Place in the list of members; owner of the slice of that number. */
  readonly index: number;
}

/** Who does what in one generation, from one member's point of view. */
export interface Membership {
  readonly generation: number;
  readonly totalShards: number;
  readonly self: MemberPlan;
  /** The other members, in list order. */
  readonly peers: readonly MemberPlan[];
}

/** What a member does under sync.optimizer sharded. */
export interface MomentPlan {
  /** What this member steps. */
  readonly own: Slice;
  /** What the next member steps, of whose moments this one keeps a copy, so that they outlive any one of both; absent: it is alone. */
  readonly next?: { readonly slice: Slice; readonly member: MemberPlan } | undefined;
}

export function momentPlan({ self, peers }: Membership, parameters: number): MomentPlan {
  const members = peers.length + 1;
  const own = optimizerSlice(self.index, members, parameters);
  const member = peers.find(({ index }) => index === (self.index + 1) % members);
  return { own, next: member && { slice: optimizerSlice(member.index, members, parameters), member } };
}

/** Slice `index` of `size` floats shared by `members`. */
export function sliceOf(index: number, members: number, size: number): Slice {
  return { begin: Math.floor((index * size) / members), end: Math.floor(((index + 1) * size) / members) };
}

/**
 * Derives the membership from a Join.
 * @throws SegueError JOIN_INVALID when this worker is no member or the members do not hold every shard exactly once
 */
export function membershipOf(join: Pick<Join, "generation" | "members">, workerId: string, totalShards: number): Membership {
  const members = join.members.map((member, index): MemberPlan => ({
    workerId: member.workerId,
    address: member.tensorsAddress,
    shards: member.shards,
    nodes: maximalNodes(member.shards, totalShards),
    index,
  }));
  const self = members.find((member) => member.workerId === workerId);
  if (!self) throw new SegueError("JOIN_INVALID", `worker ${workerId} is not among the members`);
  const placed = members.flatMap((member) => member.shards).sort((a, b) => a - b);
  if (placed.length !== totalShards || placed.some((shard, index) => shard !== index)) {
    throw new SegueError("JOIN_INVALID", `the members hold shards [${placed.join(", ")}], not each of ${totalShards} once`);
  }
  return { generation: join.generation, totalShards, self, peers: members.filter((member) => member !== self) };
}

/** The root of the reduction tree. */
export function wholeTree({ totalShards }: Membership): ReductionNode {
  return { lo: 0, hi: totalShards };
}

/** The same members over groups of `shardsPerGroup` neighbouring shards, each held whole, instead of single shards. */
export function groupMembership(membership: Membership, shardsPerGroup: number): Membership {
  const totalShards = membership.totalShards / shardsPerGroup;
  const grouped = (member: MemberPlan): MemberPlan => {
    const shards = member.shards.filter((shard) => shard % shardsPerGroup === 0).map((shard) => shard / shardsPerGroup);
    if (shards.length * shardsPerGroup !== member.shards.length) {
      throw new SegueError("JOIN_INVALID", `member ${member.workerId} holds shards of a replica without its other shards`);
    }
    return { ...member, shards, nodes: maximalNodes(shards, totalShards) };
  };
  return { ...membership, totalShards, self: grouped(membership.self), peers: membership.peers.map(grouped) };
}
