import assert from "node:assert/strict";
import { create, MemberSchema } from "@segue/protocol";
import { membershipOf, sliceOf } from "../src/job/membership.js";

describe("membership", () => {
  const join = {
    generation: 3,
    members: [
      create(MemberSchema, { workerId: "a", tensorsAddress: "a:1", shards: [0, 1, 2] }),
      create(MemberSchema, { workerId: "b", tensorsAddress: "b:1", shards: [3, 4] }),
    ],
  };

  it("tells this member from its peers and what each publishes", () => {
    const { self, peers, totalShards } = membershipOf(join, "b", 5);
    assert.equal(totalShards, 5);
    assert.equal(self.index, 1);
    assert.deepEqual(self.nodes, [
      { lo: 3, hi: 4 },
      { lo: 4, hi: 5 },
    ]);
    assert.deepEqual(
      peers.map(({ workerId, nodes }) => ({ workerId, nodes })),
      [
        {
          workerId: "a",
          nodes: [
            { lo: 0, hi: 2 },
            { lo: 2, hi: 3 },
          ],
        },
      ],
    );
  });

  it("refuses a Join that is not for this worker or leaves a shard to nobody", () => {
    assert.throws(() => membershipOf(join, "c", 5), { code: "JOIN_INVALID" });
    assert.throws(() => membershipOf(join, "a", 6), { code: "JOIN_INVALID" });
    assert.throws(() => membershipOf(join, "a", 4), { code: "JOIN_INVALID" });
  });

  it("cuts the parameters into slices that follow one another, even when there are fewer parameters than members", () => {
    for (const [members, size] of [
      [3, 10],
      [4, 2],
      [1, 7],
    ] as const) {
      const slices = Array.from({ length: members }, (_, index) => sliceOf(index, members, size));
      assert.equal(slices[0]?.begin, 0);
      assert.equal(slices.at(-1)?.end, size);
      slices.slice(1).forEach((slice, index) => assert.equal(slice.begin, slices[index]?.end));
    }
  });
});
