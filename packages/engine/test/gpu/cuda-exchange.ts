import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { ncclVersion } from "../../src/cuda/nccl-library.js";
import { runGroup, type GroupTask } from "../support/exchange-group.js";
import { MODELS } from "./models.js";

const gpuCount = execFileSync("nvidia-smi", ["-L"], { encoding: "utf8" }).trim().split("\n").length;

const SHARDS: Readonly<Record<number, readonly (readonly number[])[]>> = {
  1: [[0, 1, 2, 3, 4]],
  2: [
    [0, 1, 2],
    [3, 4],
  ],
  3: [[0, 1], [2], [3, 4]],
  4: [[0], [1, 4], [2], [3]],
};

describe("exchange of gradients between GPUs and between processes on one", () => {
  const task = (members: number, changes: Partial<GroupTask>): GroupTask => ({
    ...{ engine: "cuda", precision: "bf16", model: MODELS.even, transport: "ipc", whole: false, patienceMs: 300_000 },
    ...{ lanes: 2, tokens: 150, steps: 6, totalShards: 5, shards: SHARDS[members]! },
    ...changes,
  });
  const digestOf = async (group: GroupTask): Promise<string> => {
    const told = await runGroup(group);
    const digests = told.map((result) => (result !== "gone" && result.type === "done" ? result.digest : JSON.stringify(result)));
    for (const digest of digests) assert.equal(digest, digests[0]);
    return digests[0]!;
  };

  for (const [name, model] of Object.entries(MODELS)) {
    for (const precision of ["bf16", "f32"] as const) {
      it(`ipc gives the bits of one member on two, three and four: ${name}, ${precision}`, async () => {
        const alone = await digestOf(task(1, { model, precision }));
        for (const members of [2, 3, 4]) assert.equal(await digestOf(task(members, { model, precision })), alone);
        assert.equal(await digestOf(task(2, { model, precision, whole: true })), alone);
      });
    }
  }

  // Eighteen blocks, the last of them short.
  const sliced = { model: { ...MODELS.evenGroups, vocab: 65 }, sharded: true };

  for (const precision of ["bf16", "f32"] as const) {
    it(`ipc gives the bits of one member where each steps a slice of its own: ${precision}`, async () => {
      const alone = await digestOf(task(1, { ...sliced, precision }));
      for (const members of [2, 3, 4]) assert.equal(await digestOf(task(members, { ...sliced, precision })), alone);
      // Members without a slice.
      const small = { ...sliced, model: MODELS.odd, precision };
      assert.equal(await digestOf(task(3, small)), await digestOf(task(1, small)));
    });
  }

  for (const precision of ["bf16", "f32"] as const) {
    it(`ipc joins replicas to the bits of one member on two, three and four: ${precision}`, async () => {
      const diloco = (members: number, changes: Partial<GroupTask> = {}): GroupTask =>
        task(members, { precision, innerSteps: 2, ...changes });
      const alone = await digestOf(diloco(1));
      for (const members of [2, 3, 4]) assert.equal(await digestOf(diloco(members)), alone);
      assert.equal(await digestOf(diloco(2, { whole: true })), alone);
      assert.notEqual(await digestOf(diloco(1, { innerSteps: 3 })), alone);
    });
  }

  it("ipc rounds to bf16 alike on every member, again to the same bits", async () => {
    const rounded = (members: number, changes: Partial<GroupTask> = {}): GroupTask => task(members, { wire: "bf16", ...changes });
    const exact = await digestOf(task(1, {}));
    for (const innerSteps of [undefined, 2]) {
      const replicas = innerSteps === undefined ? {} : { innerSteps };
      const digest = await digestOf(rounded(3, replicas));
      assert.equal(await digestOf(rounded(3, replicas)), digest);
      // Sums that everybody makes whole are not rounded.
      assert.notEqual(await digestOf(rounded(3, { ...replicas, whole: true })), digest);
      assert.notEqual(digest, exact);
    }
  });

  it("a member that dies in the exchange fails the others with its name, and the GPU goes on", async () => {
    const told = await runGroup(task(3, { steps: 40, patienceMs: 2_000, death: { member: 1, step: 9 } }));
    assert.equal(told[1], "gone");
    for (const self of [0, 2]) {
      const result = told[self]!;
      assert.ok(result !== "gone" && result.type === "failed");
      assert.equal(result.code, "EXCHANGE_TIMED_OUT");
      assert.match(result.message, /member 1/);
    }
    assert.equal(await digestOf(task(2, {})), await digestOf(task(1, {})));
  });

  it("nccl gives the same bits", async function () {
    if (gpuCount < 2 || ncclVersion() === "") return this.skip();
    const alone = await digestOf(task(1, {}));
    for (const whole of [false, true]) assert.equal(await digestOf(task(2, { transport: "nccl", whole })), alone);
  });

  it("nccl gives the same bits where each steps a slice of its own", async function () {
    if (gpuCount < 2 || ncclVersion() === "") return this.skip();
    assert.equal(await digestOf(task(2, { ...sliced, transport: "nccl" })), await digestOf(task(1, sliced)));
  });

  it("nccl gives the bits of ipc for rounded vectors and for replicas", async function () {
    if (gpuCount < 2 || ncclVersion() === "") return this.skip();
    for (const changes of [{ wire: "bf16" }, { innerSteps: 2 }, { wire: "bf16", innerSteps: 2 }] as const) {
      for (const whole of [false, true]) {
        const ipc = await digestOf(task(2, { ...changes, whole }));
        assert.equal(await digestOf(task(2, { ...changes, whole, transport: "nccl" })), ipc, JSON.stringify({ ...changes, whole }));
      }
    }
  });

  it("nccl is given up when a member dies, without taking the process along", async function () {
    if (gpuCount < 2 || ncclVersion() === "") return this.skip();
    const told = await runGroup(task(2, { transport: "nccl", steps: 40, patienceMs: 5_000, death: { member: 1, step: 9 } }));
    assert.equal(told[1], "gone");
    const survivor = told[0]!;
    assert.ok(survivor !== "gone" && survivor.type === "failed");
    assert.match(survivor.code, /^(EXCHANGE_TIMED_OUT|NCCL_FAILED)$/);
  });
});
