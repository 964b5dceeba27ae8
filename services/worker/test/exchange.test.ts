import assert from "node:assert/strict";
import { randomStream } from "@segue/core";
import { TensorRegistry, Tensors, tensorsHandlers } from "@segue/protocol";
import { startGrpcServer, type GrpcServer } from "@segue/runtime";
import { ComputeThread } from "../src/compute/compute-thread.js";
import { exchangePlan } from "../src/job/exchange-plan.js";
import { GrpcExchange } from "../src/job/grpc-exchange.js";
import { membershipOf } from "../src/job/membership.js";
import { Peers } from "../src/tensors/peers.js";
import { fakeCompute, logger } from "./support/scripted-coordinator.js";

const FIRST_STEP = 7;

interface Member {
  readonly exchange: GrpcExchange;
  readonly compute: ComputeThread;
  readonly nodes: number;
  close(): Promise<void>;
}

describe("exchange", () => {
  let members: Member[] = [];
  afterEach(async () => {
    await Promise.all(members.map((member) => member.close()));
    members = [];
  });

  /** Members of one generation, each with its Tensors service and compute thread. */
  async function start(shardsOf: readonly number[][], vectorFloats: number, wire: "f32" | "bf16"): Promise<void> {
    const registries = shardsOf.map(() => new TensorRegistry());
    const servers: GrpcServer[] = [];
    for (const registry of registries) {
      const services = [{ service: Tensors, handlers: tensorsHandlers(registry) }] as const;
      servers.push(await startGrpcServer({ listen: "127.0.0.1:0", services, logger }));
    }
    const list = shardsOf.map((shards, index) => ({
      $typeName: "segue.v1.Member" as const,
      workerId: `w${index}`,
      tensorsAddress: servers[index]!.address,
      shards: [...shards],
    }));
    members = shardsOf.map((_, index) => {
      const membership = membershipOf({ generation: 3, members: list }, `w${index}`, shardsOf.flat().length);
      const [peers, abort, compute] = [new Peers({}), new AbortController(), new ComputeThread(fakeCompute)];
      const { signal } = abort;
      const registry = registries[index]!;
      const shared = { jobId: "j", vectorFloats, wire, epoch: 0, patienceMs: 300_000 };
      const options = { ...shared, membership, compute, registry, peers, signal };
      return {
        exchange: new GrpcExchange(options, FIRST_STEP),
        compute,
        nodes: membership.self.nodes.length,
        async close() {
          abort.abort();
          await compute.close();
          peers.close();
          registry.close();
          await servers[index]!.close(100);
        },
      };
    });
  }

  /** Every member's total of each of four steps, from random nodes. */
  async function totals(): Promise<Float32Array[][]> {
    const run = async ({ exchange, compute, nodes }: Member, member: number): Promise<Float32Array[]> => {
      const found: Float32Array[] = [];
      for (let step = FIRST_STEP; step < FIRST_STEP + 4; step++) {
        exchange.begin(step);
        for (let index = 0; index < nodes; index++) {
          const random = randomStream(1, "node", step, member, index);
          const node = exchange.node(step, index);
          for (let i = 0; i < node.length; i++) node[i] = random.uniform() - 0.5;
          await exchange.offer(step, index);
        }
        const parts = await exchange.gather(step);
        const into = exchange.total(step);
        if (parts) await compute.call("join", { epoch: 0, ...parts, into });
        found.push(into.slice());
      }
      return found;
    };
    return Promise.all(members.map(run));
  }

  const large = 300_001;
  for (const [manner, shardsOf, floats] of [
    ["whole", [[0, 1], [2], [3]], 1000],
    ["sliced", [[0, 1], [2], [3]], large],
  ] as const) {
    it(`${manner}: gives every member the same sum, added in tree order`, async () => {
      await start(
        shardsOf.map((shards) => [...shards]),
        floats,
        "f32",
      );
      const [first, ...others] = await totals();
      for (const other of others) assert.deepEqual(other, first);
      // Nodes are [0, 2), [2, 3), [3, 4): the tree adds the right half first.
      const [a, b, c] = [0, 1, 2].map((member) => {
        const random = randomStream(1, "node", FIRST_STEP + 3, member, 0);
        return Float32Array.from({ length: floats }, () => random.uniform() - 0.5);
      });
      const expected = a!.map((value, i) => value + Math.fround(b![i]! + c![i]!));
      assert.deepEqual(first![3], expected);
      const { bytes, pulls } = members[1]!.exchange.counts;
      assert.equal(pulls / 4, manner === "whole" ? 2 : 4);
      // Two parts of a third, and two sums of a third; or two nodes.
      assert.ok(Math.abs(bytes / 4 - (manner === "whole" ? 8 : 16 / 3) * floats) < 16);
    });

    it(`${manner}: bfloat16 gives every member the same sum again and again, in half the bytes`, async () => {
      await start(
        shardsOf.map((shards) => [...shards]),
        floats,
        "f32",
      );
      const [exact] = await totals();
      const { bytes } = members[1]!.exchange.counts;
      await Promise.all(members.map((member) => member.close()));
      const rounded: Float32Array[][] = [];
      for (let repeat = 0; repeat < 2; repeat++) {
        await start(
          shardsOf.map((shards) => [...shards]),
          floats,
          "bf16",
        );
        rounded.push(...(await totals()));
        assert.equal(members[1]!.exchange.counts.bytes, bytes / 2);
        await Promise.all(members.splice(0).map((member) => member.close()));
      }
      for (const other of rounded.slice(1)) assert.deepEqual(other, rounded[0]);
      assert.notDeepEqual(rounded[0], exact);
      const worst = exact![0]!.reduce((most, value, i) => Math.max(most, Math.abs(value - rounded[0]![0]![i]!)), 0);
      assert.ok(worst > 0 && worst < 0.02, `off by ${worst}`);
    });
  }

  it("is sliced only where that saves bytes, and all members agree", () => {
    const plans = (shardsOf: number[][], floats: number): string[] => {
      const list = shardsOf.map((shards, index) => ({
        $typeName: "segue.v1.Member" as const,
        workerId: `w${index}`,
        tensorsAddress: "",
        shards,
      }));
      const total = shardsOf.flat().length;
      return list.map(
        ({ workerId }) => exchangePlan(membershipOf({ generation: 1, members: list }, workerId, total), floats).manner,
      );
    };
    assert.deepEqual(
      plans(
        [
          [0, 1],
          [2, 3],
        ],
        1e8,
      ),
      ["whole", "whole"],
    );
    assert.deepEqual(plans([[0], [1], [2]], 1e4), ["whole", "whole", "whole"]);
    assert.deepEqual(plans([[0], [1], [2]], 1e6), ["sliced", "sliced", "sliced"]);
    // One has three nodes, the other one: pulling three whole ones would be more than slices of three and a sum.
    assert.deepEqual(
      plans(
        [
          [0, 1, 2, 4, 6, 7],
          [3, 5],
        ],
        1e6,
      ),
      ["sliced", "sliced"],
    );
  });
});
