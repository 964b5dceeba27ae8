import {
  addsWhole,
  assignShards,
  laneStateFloats,
  laneTokensPerStep,
  maximalNodes,
  modelVectors,
  parameterLayout,
  shardsPerPlacement,
  splitPoint,
  type JobSpec,
  type ReductionNode,
} from "@segue/core";
import { stepsWaiting, TOKEN_BYTES } from "./segments.js";
import { FLOAT_BYTES, hostPart, MIB, type MemoryPart } from "./memory-part.js";

/** Node.js with the worker's code, both threads' heaps and the libraries of the engines, before a job (`npm run bench:memory`). */
const PROCESS_BYTES = 104 * MIB;

/** What V8 lets two heaps at work grow by, and the buffers that wait for it to collect them. */
const HEAPS_BYTES = 42 * MIB;

/** What a worker holds beside its engine. @param member its place among the job's workers */
export function workerParts(spec: JobSpec, workers: number, member: number, threads: number): MemoryPart[] {
  const parameters = parameterLayout(spec.model).size;
  const vectorBytes = parameters * FLOAT_BYTES;
  const shards = (assignShards(spec.batch.shards, workers, shardsPerPlacement(spec))[member] ?? []).length;
  const shardTokens = spec.batch.lanesPerShard * laneTokensPerStep(spec.tbptt);
  const statesBytes = shards * spec.batch.lanesPerShard * laneStateFloats(spec.model) * FLOAT_BYTES;
  const vectors = modelVectors(spec);
  return [
    hostPart("process", "Node.js, code, libraries: measured", PROCESS_BYTES),
    hostPart("heaps", "what they and dead buffers grow by at work: measured", HEAPS_BYTES),
    ...sumParts(spec, workers, member, vectorBytes),
    hostPart("snapshots", `2 x (${vectors} x parameters + lane states)`, 2 * (vectors * vectorBytes + statesBytes)),
    hostPart(
      "waiting segments",
      "2 rounds x steps x shards here x tokens x 13 bytes",
      stepsWaiting(spec, workers * threads) * shards * shardTokens * TOKEN_BYTES,
    ),
    hostPart("segment arrays", "tokens, labels, weights, resets, losses of one shard", shardTokens * 2 * TOKEN_BYTES),
  ];
}

/** What it takes to add up gradients, or under diloco the replicas' changes. */
function sumParts(spec: JobSpec, workers: number, member: number, vectorBytes: number): MemoryPart[] {
  const isDiloco = spec.sync.mode === "diloco";
  const perPlacement = shardsPerPlacement(spec);
  // The tree is over shards or, under diloco, over replicas.
  const leaves = spec.batch.shards / perPlacement;
  const nodesOf = assignShards(leaves, workers).map((held) => maximalNodes(held, leaves));
  const own = nodesOf[member] ?? [];
  const peerNodes = nodesOf.reduce((sum, nodes) => sum + nodes.length, 0) - own.length;
  const summedBytes = (isDiloco ? 3 : 1) * vectorBytes;
  const isWhole = addsWhole(
    nodesOf.map(({ length }) => length),
    summedBytes / FLOAT_BYTES,
  );
  const sliceBytes = isWhole ? summedBytes : summedBytes / workers;
  const joinLevels = workers > 1 ? levelsAbove({ lo: 0, hi: leaves }, nodesOf.flat()) : 0;
  const what = isDiloco ? "3 x parameters" : "parameters";
  const slice = isWhole ? what : `${what} / workers`;
  const parts = [
    workers === 1
      ? hostPart("sum", what, summedBytes)
      : hostPart("sums", `2 x (${own.length} nodes here + total) x ${what}`, 2 * (own.length + 1) * summedBytes),
    hostPart("nodes of peers", `2 x ${peerNodes} nodes x ${slice}`, 2 * peerNodes * sliceBytes),
    hostPart("joining", `${joinLevels} levels of the tree x ${slice}`, joinLevels * sliceBytes),
  ];
  const ownLevels = Math.max(0, ...own.map(levelsOf));
  if (!isDiloco) {
    parts.push(hostPart("adding shards", `${ownLevels} levels of the tree x parameters`, ownLevels * vectorBytes));
  } else {
    const levels = levelsOf({ lo: 0, hi: perPlacement });
    const together = Math.max(0, ...own.map(({ lo, hi }) => (hi - lo > 1 ? hi - lo : 0)));
    parts.push(
      hostPart("adding shards", `(1 + ${levels} levels of the tree) x parameters`, (1 + levels) * vectorBytes),
      hostPart("adding replicas", `${ownLevels} levels of the tree x 3 x parameters`, ownLevels * summedBytes),
      hostPart("replicas here", `${together} x 3 x parameters`, together * summedBytes),
      hostPart("outer step", "4 x parameters: momentum, start of the block", 4 * vectorBytes),
    );
  }
  return parts.filter(({ bytes }) => bytes > 0);
}

/** Levels of right subtrees below a node: a buffer for each. */
function levelsOf(node: ReductionNode): number {
  const split = splitPoint(node);
  if (split === undefined) return 0;
  return 1 + Math.max(levelsOf({ lo: node.lo, hi: split }), levelsOf({ lo: split, hi: node.hi }));
}

/** Levels below a node with a right subtree that has to be added up from nodes whose sums are known: a buffer for each. */
function levelsAbove(node: ReductionNode, known: readonly ReductionNode[]): number {
  const isKnown = ({ lo, hi }: ReductionNode): boolean => known.some((other) => other.lo === lo && other.hi === hi);
  const levels = new Set<number>();
  const visit = (at: ReductionNode, depth: number): void => {
    const split = splitPoint(at);
    if (split === undefined || isKnown(at)) return;
    const right = { lo: split, hi: at.hi };
    if (!isKnown(right)) levels.add(depth);
    visit({ lo: at.lo, hi: split }, depth + 1);
    visit(right, depth + 1);
  };
  visit(node, 0);
  return levels.size;
}
