import {
  addsWhole,
  assignShards,
  maximalNodes,
  parameterLayout,
  shardsPerPlacement,
  splitPoint,
  type JobSpec,
  type ReductionNode,
} from "@segue/core";
import type { EngineName } from "../create-engine.js";
import { FLOAT_BYTES, hostPart, type MemoryPart } from "./memory-part.js";

/**
 * What it takes on a worker to add up gradients, or under diloco the replicas' changes. Transport `auto` counts as `ipc` where the engine
 * has it: whether the workers will share a host, nobody knows yet.
 * @param member its place among the workers
 */
export function sumParts(spec: JobSpec, workers: number, member: number, engine: EngineName): MemoryPart[] {
  const isDiloco = spec.sync.mode === "diloco";
  const vectorBytes = parameterLayout(spec.model).size * FLOAT_BYTES;
  // The tree is over shards or, under diloco, over replicas.
  const perLeaf = shardsPerPlacement(spec);
  const leaves = spec.batch.shards / perLeaf;
  const nodesOf = assignShards(leaves, workers).map((held) => maximalNodes(held, leaves));
  const own = nodesOf[member] ?? [];
  const exchange: ExchangeShape = {
    nodesOf,
    own,
    tree: { lo: 0, hi: leaves },
    isRounded: spec.sync.wire === "bf16",
    isSharded: spec.sync.optimizer === "sharded",
    summedBytes: (isDiloco ? 3 : 1) * vectorBytes,
    summed: isDiloco ? "3 x parameters" : "parameters",
  };
  const hasEngineSums = engine !== "tfjs";
  const isAlone = workers === 1;
  const isInEngine = hasEngineSums && (isAlone ? !isDiloco : spec.sync.transport !== "grpc");
  const inEngine = (parts: MemoryPart[]): MemoryPart[] =>
    engine === "cuda" ? parts.map((part) => ({ ...part, place: "device" })) : parts;
  const parts: MemoryPart[] = [];
  if (isDiloco) {
    const shards = addingParts([{ lo: 0, hi: perLeaf }], vectorBytes);
    const gradient = hostPart("gradient of a replica", "parameters", vectorBytes);
    parts.push(...(hasEngineSums ? inEngine(shards) : [...shards, gradient]));
    const momentum = hostPart("outer step", "parameters: momentum, until the engine has it", vectorBytes);
    parts.push(...(isInEngine ? [...inEngine(engineReplicaParts(own, vectorBytes)), momentum] : replicaParts(own, vectorBytes)));
  } else {
    const shards = addingParts(own, vectorBytes);
    parts.push(...(isInEngine ? inEngine(shards) : shards));
  }
  if (!isAlone) {
    parts.push(...(isInEngine ? inEngine(engineExchangeParts(exchange, engine, spec.sync.transport)) : exchangeParts(exchange)));
  } else if (!isInEngine) parts.push(hostPart("sum", exchange.summed, exchange.summedBytes));
  return parts.filter(({ bytes }) => bytes > 0);
}

interface ExchangeShape {
  /** The nodes of every worker, and of this one. */
  readonly nodesOf: readonly (readonly ReductionNode[])[];
  readonly own: readonly ReductionNode[];
  readonly tree: ReductionNode;
  /** Whether bf16 is sent. */
  readonly isRounded: boolean;
  /** Whether each member adds its slice, however small. */
  readonly isSharded: boolean;
  readonly summedBytes: number;
  readonly summed: string;
}

/** Buffers of an exchange over gRPC, used in turn. */
const SETS = 2;

/** What of the others' nodes a worker adds. */
function sliceAdded({ nodesOf, own, summedBytes, summed, isSharded }: ExchangeShape) {
  const counts = nodesOf.map(({ length }) => length);
  const peerNodes = counts.reduce((sum, count) => sum + count, 0) - own.length;
  const isWhole = !isSharded && addsWhole(counts, summedBytes / FLOAT_BYTES);
  const slice = isWhole ? summed : `${summed} / workers`;
  const sliceBytes = isWhole ? summedBytes : summedBytes / nodesOf.length;
  return { peerNodes, isWhole, slice, sliceBytes };
}

/** Where the engines exchange by themselves. What peers share is mapped: theirs, but counted as this process's own on a CPU. */
function engineExchangeParts(shape: ExchangeShape, engine: EngineName, transport: JobSpec["sync"]["transport"]): MemoryPart[] {
  const { own, nodesOf, summedBytes, summed, isRounded } = shape;
  const { peerNodes, isWhole, slice, sliceBytes } = sliceAdded(shape);
  const totals = isWhole || transport === "nccl" ? 0 : nodesOf.length - 1;
  const isElsewhere = engine === "cuda" && transport !== "nccl";
  const parts = [
    hostPart("sums", `(${own.length} nodes here + total) x ${summed}`, (own.length + 1) * summedBytes),
    hostPart(
      "nodes of peers",
      `(${peerNodes} nodes + ${totals} sums) x ${slice}`,
      isElsewhere ? 0 : (peerNodes + totals) * sliceBytes,
    ),
  ];
  // Under `ipc` vectors are rounded where they lie.
  if (transport === "nccl" && isRounded) {
    const halves = parts.reduce((sum, { bytes }) => sum + bytes, 0) / 2;
    parts.push(hostPart("rounded for sending", "half of the sums and of the nodes of peers", halves));
  }
  return parts;
}

function exchangeParts(shape: ExchangeShape): MemoryPart[] {
  const { nodesOf, own, tree, isRounded, summedBytes, summed } = shape;
  const { peerNodes, isWhole, slice, sliceBytes } = sliceAdded(shape);
  const wireShare = isRounded ? 0.5 : 1;
  const levels = levelsAbove(tree, nodesOf.flat(), isRounded);
  const parts = [
    hostPart("sums", `${SETS} x (${own.length} nodes here + total) x ${summed}`, SETS * (own.length + 1) * summedBytes),
    hostPart(
      "nodes of peers",
      `${SETS} x ${peerNodes} nodes x ${slice}${isRounded ? " / 2" : ""}`,
      SETS * peerNodes * sliceBytes * wireShare,
    ),
    hostPart("joining", `${levels} levels of the tree x ${slice}`, levels * sliceBytes),
  ];
  if (isRounded) {
    const vectors = own.length + (isWhole ? 0 : 1);
    parts.push(hostPart("rounded for sending", `${SETS} x ${vectors} x ${summed} / 2`, SETS * vectors * summedBytes * wireShare));
  }
  return parts;
}

/** Shards of these nodes. */
function addingParts(nodes: readonly ReductionNode[], vectorBytes: number): MemoryPart[] {
  const levels = Math.max(0, ...nodes.map(levelsOf));
  return [hostPart("adding shards", `${levels} levels of the tree x parameters`, levels * vectorBytes)];
}

/** Replicas on one worker train one after the other. */
function replicaParts(own: readonly ReductionNode[], vectorBytes: number): MemoryPart[] {
  const levels = Math.max(0, ...own.map(levelsOf));
  const together = Math.max(0, ...own.map(({ lo, hi }) => (hi - lo > 1 ? hi - lo : 0)));
  return [
    hostPart("adding replicas", `${levels} levels of the tree x 3 x parameters`, levels * 3 * vectorBytes),
    hostPart("replicas here", `${together} x 3 x parameters`, together * 3 * vectorBytes),
    hostPart("outer step", "4 x parameters: momentum, start of the block", 4 * vectorBytes),
  ];
}

/** The same where the engine holds them: each is added up as soon as it is there. */
function engineReplicaParts(own: readonly ReductionNode[], vectorBytes: number): MemoryPart[] {
  const levels = Math.max(0, ...own.map(levelsOf));
  const replicas = own.reduce((sum, { lo, hi }) => sum + hi - lo, 0);
  const kept = replicas > 1 ? 3 : 1;
  return [
    hostPart("adding replicas", `${levels} levels of the tree x 3 x parameters`, levels * 3 * vectorBytes),
    hostPart("replicas", `${1 + kept} x parameters: outer momentum, start of the block`, (1 + kept) * vectorBytes),
  ];
}

/** Levels of right subtrees below a node: a buffer for each. */
function levelsOf(node: ReductionNode): number {
  const split = splitPoint(node);
  if (split === undefined) return 0;
  return 1 + Math.max(levelsOf({ lo: node.lo, hi: split }), levelsOf({ lo: split, hi: node.hi }));
}

/**
 * Levels below a node with a right subtree that needs a buffer, since it is added up from nodes whose sums are known.
 * @param widened whether known ones need one as well
 */
function levelsAbove(node: ReductionNode, known: readonly ReductionNode[], widened: boolean): number {
  const isKnown = ({ lo, hi }: ReductionNode): boolean => known.some((other) => other.lo === lo && other.hi === hi);
  const levels = new Set<number>();
  const visit = (at: ReductionNode, depth: number): void => {
    const split = splitPoint(at);
    if (split === undefined || isKnown(at)) return;
    const right = { lo: split, hi: at.hi };
    if (widened || !isKnown(right)) levels.add(depth);
    visit({ lo: at.lo, hi: split }, depth + 1);
    visit(right, depth + 1);
  };
  visit(node, 0);
  return levels.size;
}
