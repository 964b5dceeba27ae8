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

  it("nccl is given up when a member dies, without taking the process along", async function () {
    if (gpuCount < 2 || ncclVersion() === "") return this.skip();
    const told = await runGroup(task(2, { transport: "nccl", steps: 40, patienceMs: 5_000, death: { member: 1, step: 9 } }));
    assert.equal(told[1], "gone");
    const survivor = told[0]!;
    assert.ok(survivor !== "gone" && survivor.type === "failed");
    assert.match(survivor.code, /^(EXCHANGE_TIMED_OUT|NCCL_FAILED)$/);
  });
});
