import assert from "node:assert/strict";
import { addsWhole, parameterLayout, type JobSpec } from "@segue/core";
import type { Worker } from "../src/worker.js";
import { untilComputing } from "./support/hold.js";
import {
  engineCompute,
  fakeCompute,
  join,
  JOB,
  joinOf,
  runRound,
  ScriptedCoordinator,
  sendRound,
  startWorker,
  tinySpec,
  type Attached,
  type Generation,
} from "./support/scripted-coordinator.js";

/** Workers with the cpu engine, which map each other's memory. */
describe("exchange between the members' engines", () => {
  let coordinator: ScriptedCoordinator;
  let workers: Worker[] = [];

  beforeEach(async () => {
    coordinator = await new ScriptedCoordinator().start();
  });
  afterEach(async () => {
    await Promise.all(workers.map((worker) => worker.close()));
    workers = [];
    await coordinator.close();
  });

  async function attach(name: string): Promise<Attached> {
    workers.push(await startWorker(coordinator.address, name, engineCompute, "cpu"));
    return coordinator.attached(name);
  }

  const generationOf = (generation: number, placed: Generation["placed"], spec = tinySpec(5)): Generation => ({
    spec,
    generation,
    placed,
  });

  /** The weights' digest after two rounds. */
  async function train(transport: string, ...shardsOf: (readonly number[])[]): Promise<string> {
    return trainWith(tinySpec(5), transport, ...shardsOf);
  }

  async function trainWith(spec: JobSpec, transport: string, ...shardsOf: (readonly number[])[]): Promise<string> {
    const streams = await Promise.all(shardsOf.map((_, index) => attach(`${transport}${workers.length}-${index}`)));
    const placed = streams.map((stream, index) => [stream, shardsOf[index]!] as const);
    const generation = generationOf(1, placed, spec);
    await join(generation, { transport });
    await runRound(generation, 0, 4);
    const done = await runRound(generation, 4, 2);
    return done[0]!.weightsDigest;
  }

  it("gives the bits of one worker, and those of grpc", async () => {
    const alone = await train("ipc", [0, 1, 2, 3, 4]);
    assert.equal(await train("ipc", [0, 1, 2], [3, 4]), alone);
    assert.equal(await train("ipc", [0, 1], [2], [3, 4]), alone);
    assert.equal(await train("grpc", [0, 1, 2], [3, 4]), alone);
  });

  it("rounds to bf16 what grpc rounds: nodes, and sums that are made in slices", async () => {
    const sync = { wire: "bf16" };
    const whole = tinySpec(5, {}, { sync });
    const model = { ...whole.model, dModel: 128, dState: 16, headDim: 32 };
    const sliced = tinySpec(5, {}, { sync, model });
    assert.ok(!addsWhole([1, 1, 2], parameterLayout(sliced.model).size));
    for (const [spec, shardsOf] of [
      [
        whole,
        [
          [0, 1, 2],
          [3, 4],
        ],
      ],
      [sliced, [[0, 1], [2], [3, 4]]],
    ] as const) {
      const digest = await trainWith(spec, "ipc", ...shardsOf);
      assert.equal(digest, await trainWith(spec, "grpc", ...shardsOf));
      assert.notEqual(digest, await trainWith(spec, "ipc", [0, 1, 2, 3, 4]));
    }
  });

  const diloco = (sync: object = {}): JobSpec => tinySpec(6, {}, { sync: { mode: "diloco", replicas: 3, innerSteps: 2, ...sync } });

  it("joins replicas to the bits of one worker, and those of grpc", async () => {
    const alone = await trainWith(diloco(), "ipc", [0, 1, 2, 3, 4, 5]);
    assert.equal(await trainWith(diloco(), "ipc", [0, 1, 2, 3], [4, 5]), alone);
    assert.equal(await trainWith(diloco(), "ipc", [0, 1], [2, 3], [4, 5]), alone);
    assert.equal(await trainWith(diloco(), "grpc", [0, 1, 2, 3], [4, 5]), alone);
  });

  it("rounds what replicas have become as grpc does", async () => {
    const spec = diloco({ wire: "bf16" });
    const digest = await trainWith(spec, "ipc", [0, 1, 2, 3], [4, 5]);
    assert.equal(digest, await trainWith(spec, "grpc", [0, 1, 2, 3], [4, 5]));
    assert.notEqual(digest, await trainWith(spec, "ipc", [0, 1, 2, 3, 4, 5]));
  });

  it("reports a round while it waits for the others in a step of the next", async () => {
    const [left, right] = [await attach("left"), await attach("right")];
    const both = generationOf(1, [
      [left, [0, 1, 2]],
      [right, [3, 4]],
    ]);
    const [first, second] = both.placed.map((member): Generation => ({ ...both, placed: [member] }));
    await join(both, { transport: "ipc" });
    const segmentsOfAll = [0, 1, 2, 3, 4];
    // The other one is promised nothing, so that it comes to step 4 only when the next round is asked for.
    sendRound(first!, 0, 4, { nextSteps: 2, weighed: segmentsOfAll });
    sendRound(second!, 0, 4, { weighed: segmentsOfAll });
    for (const { placed } of [first!, second!]) assert.equal((await placed[0]![0].next("roundDone")).firstStep, 0);
    const [done] = await runRound(both, 4, 2);
    assert.equal(done!.weightsDigest, await train("ipc", segmentsOfAll));
  });

  for (const [mode, spec, moved] of [
    [
      "exact",
      tinySpec(5),
      [
        [0, 1],
        [2, 3, 4],
      ],
    ],
    [
      "diloco",
      diloco(),
      [
        [0, 1],
        [2, 3, 4, 5],
      ],
    ],
  ] as const) {
    it(`is given up when the generation is withdrawn while others are waited for, and the next one ends in the same bits: ${mode}`, async () => {
      const all = Array.from({ length: spec.batch.shards }, (_, shard) => shard);
      const alone = await trainWith(spec, "ipc", all);
      const [left, right] = [await attach("left"), await attach("right")];
      const first = generationOf(
        1,
        [
          [left, all.slice(0, -2)],
          [right, all.slice(-2)],
        ],
        spec,
      );
      await join(first, { transport: "ipc" });
      const [done] = await runRound(first, 0, 4);
      // The other one has nothing to do, so that this one waits.
      sendRound({ ...first, placed: [first.placed[0]!] }, 4, 2);
      await untilComputing(left, true);
      for (const stream of [left, right]) stream.send({ case: "withdraw", value: { jobId: JOB, generation: 1 } });
      const second = generationOf(
        2,
        [
          [right, moved[0]],
          [left, moved[1]],
        ],
        spec,
      );
      const at = { step: 4, weightsDigest: done!.weightsDigest, transport: "ipc" };
      for (const [stream] of second.placed) {
        // Shards that change places bring their states from the one that had them.
        const other = stream === left ? right : left;
        const value = { statesAddress: other.hello.tensorsAddress, ...at };
        stream.send({ case: "join", value: { ...joinOf(second), ...value } });
      }
      await Promise.all([left.next("ready"), right.next("ready")]);
      const [again] = await runRound(second, 4, 2);
      assert.equal(again!.weightsDigest, alone);
    });
  }

  it("is refused by engines that hand their gradients out, with a code after which another transport may do", async () => {
    workers.push(
      await startWorker(coordinator.address, "left", fakeCompute),
      await startWorker(coordinator.address, "right", fakeCompute),
    );
    const placed = [
      [await coordinator.attached("left"), [0, 1, 2]],
      [await coordinator.attached("right"), [3, 4]],
    ] as const;
    for (const [stream] of placed) stream.send({ case: "join", value: { ...joinOf(generationOf(1, placed)), transport: "ipc" } });
    for (const [stream] of placed) assert.equal((await stream.next("failure")).code, "EXCHANGE_UNAVAILABLE");
    await join(generationOf(2, placed), { transport: "grpc" });
  });
});
