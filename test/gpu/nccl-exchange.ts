/**
 * Exchanges random nodes between N processes, one GPU each, with NCCL and checks every bit of the sums against the reduction tree.
 *
 *     node --import=tsx --conditions=segue-source test/gpu/nccl-exchange.ts [--ranks 1] [--floats 8000000] [--steps 20]
 *
 * `SEGUE_NCCL_LIB` names the library where the loader does not find libnccl.so.2. Exits with 0 when all ranks agree.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { splitPoint, type ReductionNode } from "@segue/core";
import { collect, type CollectMember } from "../../services/worker/src/compute/collect.js";
import type { JoinParts } from "../../services/worker/src/compute/join-parts.js";
import { TreeSum } from "../../services/worker/src/compute/tree-sum.js";
import { Communicator } from "../../services/worker/src/nccl/communicator.js";
import { loadNccl } from "../../services/worker/src/nccl/nccl-library.js";

const { values: options } = parseArgs({
  options: {
    ranks: { type: "string", default: "1" },
    floats: { type: "string", default: "8000000" },
    steps: { type: "string", default: "20" },
    rank: { type: "string" },
    id: { type: "string" },
  },
});
const [ranks, floats, steps] = [Number(options.ranks), Number(options.floats), Number(options.steps)];
const library = process.env["SEGUE_NCCL_LIB"];
const PATIENCE_MS = 120_000;

/** Any numbers whose float32 sum depends on the order. */
function fill(into: Float32Array, step: number, rank: number): void {
  let state = (step * 977 + rank * 131 + 1) >>> 0;
  for (let i = 0; i < into.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    into[i] = (state / 2 ** 32 - 0.5) * 10 ** ((state >>> 8) % 7);
  }
}

function addNodes(sums: TreeSum, { node, parts, into }: JoinParts): void {
  const known = new Map(parts.map(({ node: { lo, hi }, slice }) => [`${lo}-${hi}`, slice as Float32Array]));
  const sum = sums.sum(node, into, ({ lo, hi }) => known.get(`${lo}-${hi}`));
  if (sum !== into) into.set(sum);
}

/** One shard a rank; every rank's own part: a slice, or with `isWhole` everything. */
function membersOf(isWhole: boolean): CollectMember[] {
  return Array.from({ length: ranks }, (_, rank) => ({
    nodes: [{ lo: rank, hi: rank + 1 }],
    begin: isWhole ? 0 : Math.floor((rank * floats) / ranks),
    end: isWhole ? floats : Math.floor(((rank + 1) * floats) / ranks),
  }));
}

function expectedSum(step: number, node: ReductionNode): Float32Array {
  const split = splitPoint(node);
  if (split === undefined) {
    const leaf = new Float32Array(floats);
    fill(leaf, step, node.lo);
    return leaf;
  }
  const [left, right] = [expectedSum(step, { lo: node.lo, hi: split }), expectedSum(step, { lo: split, hi: node.hi })];
  return left.map((value, i) => value + (right[i] as number));
}

function runRank(rank: number, id: string): void {
  const startedMs = performance.now();
  const check = (): void => {
    if (performance.now() - startedMs > PATIENCE_MS) throw new Error(`rank ${rank} waited ${PATIENCE_MS} ms`);
  };
  const communicator = new Communicator({ library, uniqueId: Buffer.from(id, "hex"), ranks, rank, device: rank, check });
  const sums = new TreeSum();
  const own = new Float32Array(new SharedArrayBuffer(4 * floats));
  const into = new Float32Array(new SharedArrayBuffer(4 * floats));
  const node = { lo: 0, hi: ranks };
  for (const isWhole of [false, true]) {
    let [bytes, exchangeMs] = [0, 0];
    for (let step = 0; step < steps; step++) {
      fill(own, step, rank);
      into.fill(NaN);
      const beforeMs = performance.now();
      bytes += collect(communicator, { rank, members: membersOf(isWhole), nodes: [own], node, into }, (parts) =>
        addNodes(sums, parts),
      );
      if (step > 0) exchangeMs += performance.now() - beforeMs;
      // Making the expectation takes much longer than the exchange: first and last step stand for all.
      if (step > 0 && step < steps - 1) continue;
      const expected = expectedSum(step, node);
      const wrong = expected.findIndex((value, i) => value !== into[i]);
      if (wrong >= 0) throw new Error(`rank ${rank}, step ${step}: float ${wrong} is ${into[wrong]}, not ${expected[wrong]}`);
    }
    if (rank === 0) {
      const perStepMs = exchangeMs / Math.max(1, steps - 1);
      const rate = (bytes / steps / 1e6 / perStepMs).toFixed(2);
      console.log(
        `${isWhole ? "whole" : "sliced"}: ${floats} floats, ${perStepMs.toFixed(2)} ms a step, ${rate} GB/s received a rank`,
      );
    }
  }
  communicator.close();
}

if (options.rank !== undefined) {
  runRank(Number(options.rank), options.id ?? "");
} else {
  const nccl = loadNccl(library);
  console.log(`NCCL ${nccl.version}, ${ranks} rank(s)`);
  const id = Buffer.from(nccl.uniqueId()).toString("hex");
  const script = fileURLToPath(import.meta.url);
  const codes = Array.from({ length: ranks }, async (_, rank) => {
    const child = fork(script, ["--rank", String(rank), "--id", id, ...process.argv.slice(2)]);
    const [code] = (await once(child, "exit")) as [number | null];
    return code;
  });
  const failed = (await Promise.all(codes)).filter((code) => code !== 0).length;
  console.log(failed === 0 ? "ok: every rank has the bits of the reduction tree" : `${failed} rank(s) failed`);
  process.exitCode = failed === 0 ? 0 : 1;
}
