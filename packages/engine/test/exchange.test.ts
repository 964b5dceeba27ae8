import assert from "node:assert/strict";
import { parameterLayout, roundToBf16, SLICE_BLOCK_FLOATS } from "@segue/core";
import { sumOrder } from "../src/exchange/device-sharing.js";
import { versionText } from "../src/cuda/nccl-library.js";
import { CpuSharing } from "../src/devices/cpu/cpu-sharing.js";
import { HostMemory } from "../src/exchange/host-memory.js";
import { MODELS } from "./gpu/models.js";
import { noise } from "./native-support.js";
import { runGroup, type GroupTask } from "./support/exchange-group.js";

/** Nothing is waited for that long unless somebody is dead. */
const PATIENCE_MS = 600_000;

const TASK: Omit<GroupTask, "shards" | "whole"> = {
  ...{ engine: "cpu", precision: "f32", model: Object.values(MODELS)[0]!, transport: "ipc" },
  ...{ lanes: 2, tokens: 40, steps: 5, totalShards: 5, patienceMs: PATIENCE_MS },
};

async function digestOf(task: GroupTask): Promise<string> {
  const told = await runGroup(task);
  const digests = new Set(
    told.map((result) => (result !== "gone" && result.type === "done" ? result.digest : JSON.stringify(result))),
  );
  assert.equal(digests.size, 1, [...digests].join("\n"));
  return [...digests][0]!;
}

describe("gradient exchange on one host", () => {
  it("gives the bits of one member on two and four, sliced and whole", async () => {
    const alone = await digestOf({ ...TASK, shards: [[0, 1, 2, 3, 4]], whole: false });
    const groups = [
      [
        [0, 1, 2],
        [3, 4],
      ],
      [[0, 1], [2], [3, 4]],
      [[0], [1, 4], [2], [3]],
    ];
    for (const shards of groups) {
      for (const whole of [false, true])
        assert.equal(await digestOf({ ...TASK, shards, whole }), alone, JSON.stringify({ shards, whole }));
    }
  });

  it("gives the bits of one member where each steps a slice of its own", async () => {
    // Eighteen blocks, the last of them short, borders inside tensors.
    const model = { ...MODELS.evenGroups, vocab: 65 };
    const size = parameterLayout(model).size;
    assert.equal(Math.ceil(size / SLICE_BLOCK_FLOATS), 18);
    const task = { ...TASK, model, steps: 4, whole: false, sharded: true };
    const alone = await digestOf({ ...task, shards: [[0, 1, 2, 3, 4]] });
    for (const shards of [
      [
        [0, 1, 2],
        [3, 4],
      ],
      [[0], [1, 4], [2, 3]],
    ]) {
      assert.equal(await digestOf({ ...task, shards }), alone, JSON.stringify(shards));
    }
    // Members without a slice.
    const small = { ...task, model: MODELS.odd };
    assert.equal(
      await digestOf({ ...small, shards: [[0, 1], [2], [3, 4]] }),
      await digestOf({ ...small, shards: [[0, 1, 2, 3, 4]] }),
    );
  });

  it("joins replicas to the bits of one member, on two and four, sliced and whole", async () => {
    const diloco = { ...TASK, steps: 6, innerSteps: 2 };
    const alone = await digestOf({ ...diloco, shards: [[0, 1, 2, 3, 4]], whole: true });
    assert.equal(await digestOf({ ...diloco, shards: [[0, 1, 2, 3], [4]], whole: true }), alone);
    assert.equal(await digestOf({ ...diloco, shards: [[0], [1, 4], [2], [3]], whole: false }), alone);
    assert.notEqual(await digestOf({ ...diloco, innerSteps: 3, shards: [[0, 1, 2, 3, 4]], whole: true }), alone);
  });

  it("says who is behind when a member died", async () => {
    const shards = [[0, 1], [2], [3, 4]];
    const told = await runGroup({ ...TASK, shards, whole: false, patienceMs: 1_000, death: { member: 1, step: 2 } });
    assert.equal(told[1], "gone");
    for (const self of [0, 2]) {
      const result = told[self]!;
      assert.ok(result !== "gone" && result.type === "failed");
      assert.equal(result.code, "EXCHANGE_TIMED_OUT");
      assert.match(result.message, /^member 1 did not finish step 3/);
    }
  });
});

describe("sum order", () => {
  it("is that of the reduction tree over whatever nodes there are", () => {
    const nodes = [
      { lo: 4, hi: 5 },
      { lo: 0, hi: 2 },
      { lo: 3, hi: 4 },
      { lo: 2, hi: 3 },
    ];
    assert.deepEqual(sumOrder({ lo: 0, hi: 5 }, nodes), [[1, [3, 2]], 0]);
    assert.throws(() => sumOrder({ lo: 0, hi: 6 }, nodes), /nobody has the sum of shard 5/);
  });
});

describe("memory of the host", () => {
  it("is seen by all who open it, and is refused where its process is another one", () => {
    const memory = HostMemory.create(10_000);
    const opened = HostMemory.open(memory.handle);
    memory.bytes[9_999] = 7;
    assert.equal(opened.bytes[9_999], 7);
    opened.bytes[0] = 5;
    assert.equal(memory.bytes[0], 5);
    assert.throws(() => HostMemory.open(memory.handle.slice(0, -1) + (memory.handle.endsWith("0") ? "1" : "0")), {
      code: "EXCHANGE_UNAVAILABLE",
    });
    opened.close();
    opened.close();
    memory.close();
    assert.throws(() => HostMemory.open(memory.handle), { code: "EXCHANGE_UNAVAILABLE" });
    assert.throws(() => HostMemory.create(5 * 2 ** 30), { code: "EXCHANGE_UNAVAILABLE" });
  });
});

describe("rounding on the processor", () => {
  it("is to the nearest bfloat16, ties to even, of vectors of any length", () => {
    const sharing = new CpuSharing({ floats: (length) => new Float32Array(length), add: () => undefined });
    const floats = noise("round", 2 ** 17 + 3);
    const [expected, bits] = [floats.slice(), new Uint16Array(floats.length)];
    roundToBf16(expected, bits);
    sharing.round(floats);
    assert.deepEqual(floats, expected);
  });
});

describe("NCCL's version", () => {
  it("is written as people write it", () => assert.deepEqual([22809, 21400].map(versionText), ["2.28.9", "2.14.0"]));
});
