import assert from "node:assert/strict";
import { splitPoint, type ReductionNode } from "@segue/core";
import { openCpuDevice } from "../src/devices/cpu/cpu-device.js";
import { divide, outerStep, subtract } from "../src/devices/reference/outer.js";
import { referenceDevice } from "../src/devices/reference/reference-device.js";
import type { Device } from "../src/devices/device.js";
import type { OuterSettings } from "../src/exchange/engine-replicas.js";
import { Replicas, type TrainedVectors } from "../src/native/replicas.js";
import { noise } from "./native-support.js";

const SIZE = 37;
const BLOCKS = 3;
/** Maximal nodes of two members of a job with seven replicas. */
const NODES: readonly (readonly ReductionNode[])[] = [
  [
    { lo: 0, hi: 4 },
    { lo: 6, hi: 7 },
  ],
  [{ lo: 4, hi: 6 }],
];
const OUTER: OuterSettings = { replicas: 7, learningRate: 0.7, momentum: 0.9 };

/** What the steps of a replica come to. */
const trained = (block: number, replica: number, vector: string): Float32Array => noise(`${vector} ${block} ${replica}`, SIZE);

/** Weights, moments and outer momentum by the formulas of docs/design/sync.md, every replica held apart. */
function expected(): Float32Array[] {
  const state = ["weights", "first", "second", "u"].map((vector) => noise(vector, SIZE));
  const [weights, first, second, velocity] = state as [Float32Array, Float32Array, Float32Array, Float32Array];
  for (let block = 0; block < BLOCKS; block++) {
    const start = weights.slice();
    const change = (replica: number): Float32Array => {
      const out = new Float32Array(SIZE);
      subtract(start, trained(block, replica, "weights"), out);
      return out;
    };
    outerStep({ changes: treeSum({ lo: 0, hi: 7 }, change), start, velocity, parameters: weights, ...OUTER });
    divide(
      treeSum({ lo: 0, hi: 7 }, (replica) => trained(block, replica, "first")),
      OUTER.replicas,
      first,
    );
    divide(
      treeSum({ lo: 0, hi: 7 }, (replica) => trained(block, replica, "second")),
      OUTER.replicas,
      second,
    );
  }
  return state;
}

function treeSum(node: ReductionNode, leaf: (replica: number) => Float32Array): Float32Array {
  const split = splitPoint(node);
  if (split === undefined) return leaf(node.lo);
  const [left, right] = [treeSum({ lo: node.lo, hi: split }, leaf), treeSum({ lo: split, hi: node.hi }, leaf)];
  return left.map((x, i) => x + right[i]!);
}

/** The same by the replicas of two members, whose nodes are added as an exchange does. @returns the state of each */
function actual<F, I>(device: Device<F, I>): Float32Array[][] {
  const vector = (values: Float32Array): F => {
    const made = device.floats(values.length);
    device.upload(values, made);
    return made;
  };
  const values = (floats: F): Float32Array => {
    const into = new Float32Array(SIZE);
    device.download(floats, into);
    return into;
  };
  const begun: number[] = [];
  const members = NODES.map((ownNodes, member) => {
    const [parameters, firstMoment, secondMoment] = ["weights", "first", "second"].map((name) => vector(noise(name, SIZE)));
    const vectors: TrainedVectors<F> = { parameters: parameters!, firstMoment: firstMoment!, secondMoment: secondMoment! };
    const nodes = ownNodes.map(() => device.floats(3 * SIZE));
    const total = device.floats(3 * SIZE);
    const exchange = {
      ...{ ownNodes, nodes, total, offer: "", receivedBytes: 0, connect: () => undefined, close: () => undefined },
      begin: () => void begun.push(member),
      reduce: () => undefined,
    };
    const replicas = new Replicas(device, vectors, SIZE, exchange);
    replicas.writeMomentum(noise("u", SIZE).subarray(0, 20), 0);
    replicas.writeMomentum(noise("u", SIZE).subarray(20), 20);
    return { replicas, vectors, nodes, total, ownNodes };
  });
  for (let block = 0; block < BLOCKS; block++) {
    for (const { replicas, vectors, ownNodes } of members) {
      const held = ownNodes.flatMap(({ lo, hi }) => Array.from({ length: hi - lo }, (_, index) => lo + index));
      const startsAt = values(vectors.parameters);
      for (const [index, replica] of held.entries()) {
        replicas.begin(index === 0);
        assert.deepEqual(values(vectors.parameters), startsAt);
        device.upload(trained(block, replica, "weights"), vectors.parameters);
        device.upload(trained(block, replica, "first"), vectors.firstMoment);
        device.upload(trained(block, replica, "second"), vectors.secondMoment);
        replicas.end();
      }
    }
    // The tree: 0-3 + (4-5 + 6).
    const [first, second] = [members[0]!, members[1]!];
    for (const { total } of members) {
      device.copy(second.nodes[0]!, total);
      device.add(first.nodes[1]!, total);
      const right = device.floats(3 * SIZE);
      device.copy(total, right);
      device.copy(first.nodes[0]!, total);
      device.add(right, total);
    }
    for (const { replicas } of members) replicas.outerStep(OUTER)();
  }
  assert.deepEqual(begun, [0, 1, 0, 1, 0, 1]);
  return members.map(({ replicas, vectors }) => {
    const momentum = new Float32Array(SIZE);
    replicas.readMomentum(momentum, 0);
    replicas.close();
    return [vectors.parameters, vectors.firstMoment, vectors.secondMoment].map(values).concat([momentum]);
  });
}

describe("replicas in an engine", () => {
  it("are joined to the bits that replicas held apart give, on the processor", async () => {
    const device = await openCpuDevice(1);
    try {
      for (const state of actual(device)) assert.deepEqual(state, expected());
    } finally {
      device.close();
    }
  });

  it("are joined alike by the reference device, but for rounding", () => {
    for (const state of actual(referenceDevice)) {
      state.forEach((vector, index) => {
        const right = expected()[index]!;
        vector.forEach((value, i) => assert.ok(Math.abs(value - right[i]!) < 1e-5, `${index} ${i}: ${value}, not ${right[i]}`));
      });
    }
  });
});
